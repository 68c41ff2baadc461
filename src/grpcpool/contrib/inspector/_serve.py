"""Serves an inspector with uvicorn on a thread, for programs that are not web services; on loopback by default."""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..._shared.fork import watch_for_fork
from ._app import Inspector

if TYPE_CHECKING:
    import uvicorn

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Of an address such as `[::1]:8080`, Starlette may take what stands before the first colon for the host.
_NAMES_OF_LOOPBACK = (*_LOOPBACK, "[::1]", "[")


class Served:
    """A running server for an inspector, until `close()` or the end of the ``with`` block."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        """Starts the server."""
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._server = server
        self._listener = listener
        watch_for_fork(self)
        # The thread holds this object, so that it is there at a fork.
        self._thread = threading.Thread(target=self._run, name="grpcpool-inspector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._server.run([self._listener])

    def _after_fork_in_child(self) -> object:
        """Closes the child's copy of the listener, which would keep the port in use for as long as the child runs."""
        # `close()` would leave it to the loop, which holds the socket as well and does not run in the child.
        descriptor = self._listener.detach()
        if descriptor >= 0:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Stops the server and waits for its thread to end."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        """Returns itself: the server is already running."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stops the server."""
        self.close()


def serve(inspector: Inspector, port: int = 0, host: str = "127.0.0.1") -> Served:
    """Serves `inspector`, and nothing else, on a thread of its own; needs uvicorn.

    There is no authentication: with a `host` other than loopback, anyone who can reach the port can read the page.

    Args:
        inspector: The inspector to serve.
        port: The port to listen on; with 0 the system chooses one, see `Served.url`.
        host: The address to listen on.

    Returns:
        The running server, with its ``url`` and ``close()``.

    Raises:
        TypeError: `inspector` is not an `Inspector`.
        ImportError: uvicorn is not installed.
        OSError: The port is in use, or the address does not belong to this machine.
    """
    if not isinstance(inspector, Inspector):
        raise TypeError(f"inspector must be an Inspector, not {inspector!r}; for a pool, serve(Inspector(pool))")
    try:
        import uvicorn  # noqa: PLC0415 -- only this needs it
    except ImportError as error:
        raise ImportError("grpcpool.contrib.inspector.serve needs uvicorn: pip install uvicorn") from error
    # Blocks DNS rebinding: a foreign page whose name resolves to this machine must not read this one.
    app = TrustedHostMiddleware(inspector, allowed_hosts=_NAMES_OF_LOOPBACK) if host in _LOOPBACK else inspector
    # Logging is left to the program.
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    # What uvicorn imports only when it runs, it imports here: a fork while a thread imports leaves the child a module
    # that is half there, or locked.
    config.load()
    if hasattr(config, "get_loop_factory"):
        config.get_loop_factory()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    return Served(uvicorn.Server(config), listener)
