"""A peer that refuses streams when a test wants it to.

gRPC's own servers refuse streams only under load, and by chance. This one speaks just enough HTTP/2 to refuse at will:
it runs in the loop of the test, answers each call with its requests, one response for each, and refuses the given
number of streams. Unlike `support.refusing_server` it can refuse a stream when its request arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Final

_PREFACE: Final = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_REFUSED_STREAM: Final = 7
_STATUS_200: Final = b"\x88"


def _header(name: bytes, value: bytes) -> bytes:
    """One header, encoded by HPACK as not indexed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Refusing:
    """The peer; made by `refusing`."""

    def __init__(self, times: int, *, on_requests: bool = False) -> None:
        """Refuses the first `times` streams: at their beginning, or (`on_requests`) when their first request comes."""
        self.times = times
        self.refused = 0
        self.answered = 0
        self.port = 0
        self.connections = 0
        self.tasks: set[asyncio.Task[None] | None] = set()
        self._on_requests = on_requests

    @property
    def target(self) -> str:
        """What to connect to."""
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it is closed."""
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await _Connection(self, reader, writer).serve()
        writer.close()

    def refuses(self, *, on_request: bool) -> bool:
        """Whether to refuse the stream that begins, or that has a request."""
        if on_request is not self._on_requests or self.refused >= self.times:
            return False
        self.refused += 1
        return True


class _Connection:
    """One connection."""

    def __init__(self, peer: Refusing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._bodies: dict[int, bytes] = {}

    def _send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        length = struct.pack(">I", len(payload))[1:]
        self._writer.write(length + bytes([kind, flags]) + struct.pack(">I", stream) + payload)

    async def serve(self) -> None:
        """Serves until the connection is closed."""
        await self._reader.readexactly(_PREFACE)
        self._send(_SETTINGS, 0, 0)
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            self._frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
            await self._writer.drain()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {_SETTINGS, _PING} and not flags & _ACK:
            self._send(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind == _HEADERS:
            self._bodies[stream] = b""
            self._refuse(stream, on_request=False)
        elif kind == _DATA and payload:
            self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
            if stream in self._bodies:
                self._bodies[stream] += payload
                self._refuse(stream, on_request=True)
        if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            self._answer(stream)

    def _refuse(self, stream: int, *, on_request: bool) -> None:
        if self._peer.refuses(on_request=on_request):
            del self._bodies[stream]
            self._send(_RST_STREAM, 0, stream, struct.pack(">I", _REFUSED_STREAM))

    def _answer(self, stream: int) -> None:
        body = self._bodies.pop(stream, None)
        if body is None:
            return
        self._peer.answered += 1
        self._send(_HEADERS, _END_HEADERS, stream, _STATUS_200 + _header(b"content-type", b"application/grpc"))
        self._send(_DATA, 0, stream, body)
        self._send(_HEADERS, _END_HEADERS | _END_STREAM, stream, _header(b"grpc-status", b"0"))


@contextlib.asynccontextmanager
async def refusing(times: int, *, on_requests: bool = False) -> AsyncIterator[Refusing]:
    """A peer that serves; see `Refusing`."""
    peer = Refusing(times, on_requests=on_requests)
    serving = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = serving.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        serving.close()
        for task in peer.tasks:
            if task is not None:
                task.cancel()
