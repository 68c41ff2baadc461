"""A server that accepts connections and hangs up."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self


class HangsUp:
    """Listens beside a server that is about to go; accepts, hangs up, and records the times.

    Like gRPC's servers it shares the port. No client may connect while the server is still there.
    """

    def __init__(self, port: int) -> None:
        """On a server's port."""
        self.port = port
        self.times: list[float] = []
        self._over = False
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(1024)
        self._thread = threading.Thread(target=self._run, name="test-hangs-up", daemon=True)

    def _run(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._over:
                connection.close()
                return
            self.times.append(time.monotonic())
            connection.close()

    def __enter__(self) -> Self:
        """Starts to accept."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the port."""
        self._over = True
        # Wakes the thread, which closing the socket would not.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._socket.close()
