"""Serves an inspector alone, for a program that is no web service: on a thread, by uvicorn, on loopback."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from starlette.middleware.trustedhost import TrustedHostMiddleware

from ._app import Inspector

if TYPE_CHECKING:
    import uvicorn

_LOOPBACK = ("127.0.0.1", "localhost")


class Served:
    """An inspector that is being served, until `close()` or the end of the ``with`` block."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        """Serves when this returns."""
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._server = server
        self._listener = listener
        self._thread = threading.Thread(target=server.run, args=([listener],), name="grpcpool-inspector", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serves no longer; the thread has ended."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        """Is served already."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Serves no longer."""
        self.close()


def serve(inspector: Inspector, port: int = 0, host: str = "127.0.0.1") -> Served:
    """Serves `inspector`, and nothing else, on a thread of its own; needs uvicorn.

    Nobody is asked who they are: on another `host` than loopback, whoever reaches the port reads the page.

    Args:
        inspector: What to serve.
        port: Where; 0 has the system choose, see `Served.url`.
        host: The address to listen on.

    Returns:
        What is being served, with its ``url`` and ``close()``.

    Raises:
        ImportError: There is no uvicorn.
        OSError: The port is taken, or the address is not this machine's.
    """
    try:
        import uvicorn  # noqa: PLC0415 -- only this needs it
    except ImportError as error:
        raise ImportError("grpcpool.contrib.inspector.serve needs uvicorn: pip install uvicorn") from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # A page of elsewhere whose name has come to mean this machine is not to read what is served here.
    app = TrustedHostMiddleware(inspector, allowed_hosts=_LOOPBACK) if host in _LOOPBACK else inspector
    # The program's logging is its own.
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    return Served(uvicorn.Server(config), listener)
