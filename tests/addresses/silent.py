"""Addresses that are silent: what is sent to connect to them is dropped."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

# More than the system lets wait for a server that accepts nothing.
_WAITING = 3


@contextlib.contextmanager
def silent_address(host: str = "127.0.0.1") -> Iterator[str]:
    """An address where a server listens that accepts nothing, and whose queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, 0))
        listening.listen(0)
        for _ in range(_WAITING):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listening.getsockname())
        yield f"{host}:{listening.getsockname()[1]}"
