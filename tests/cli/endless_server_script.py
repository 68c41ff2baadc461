"""A server that never comes to an end, run as a process of its own: each client gets bytes for as long as it listens.

The first argument says what they are, see `_TALKS`. Prints its port; ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION, _UNKNOWN = 0, 1, 4, 6, 8, 9, 0x42
_ACK, _END_HEADERS = 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Much more often than once a second, so that a test need not last that long; less than a test's limit.
_PAUSE = 0.05
_SLOW = 0.2


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


_HELLO = _frame(_SETTINGS, 0, 0) + _frame(_SETTINGS, _ACK, 0)
_STATUS_200 = b"\x88"
# Literal, with the indexed name `:status`.
_STATUS_103 = b"\x08\x03103"


def _flood(client: socket.socket, first: bytes, frame: bytes) -> NoReturn:
    """Sends a frame without end, and reads nothing."""
    client.sendall(first)
    many = frame * (65536 // len(frame) + 1)
    while True:
        client.sendall(many)


def _flood_and_read(client: socket.socket, first: bytes, frame: bytes) -> None:
    """As `_flood`, but reads what the client sends, so that nothing stops the client either."""
    threading.Thread(target=_read_all, args=(client,), daemon=True).start()
    _flood(client, first, frame)


def _trickle(client: socket.socket, first: bytes, rest: bytes) -> None:
    """Sends one byte after the other, without end."""
    client.sendall(first)
    while True:
        for byte in rest:
            client.sendall(bytes([byte]))
            time.sleep(_PAUSE)


def _answer(client: socket.socket, header: bytes, rest: bytes) -> None:
    """Answers pings; the first call gets a header and then the rest without end."""
    client.sendall(_HELLO)
    for kind, flags, stream, payload in _frames(client):
        if kind == _PING and not flags & _ACK:
            client.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _HEADERS:
            _flood_and_read(client, _of_stream(header, stream), _of_stream(rest, stream))


def _answer_slowly(client: socket.socket) -> None:
    """Answers pings, each after a pause."""
    client.sendall(_HELLO)
    for kind, flags, _, payload in _frames(client):
        if kind == _PING and not flags & _ACK:
            time.sleep(_SLOW)
            client.sendall(_frame(_PING, _ACK, 0, payload))


def _of_stream(frame: bytes, stream: int) -> bytes:
    """Returns a frame of stream 1 as one of this stream; any other frame as it is."""
    return frame[:5] + struct.pack(">I", stream) + frame[9:] if frame[5:9] == b"\0\0\0\1" else frame


def _frames(client: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yields each frame of the client."""
    stream = client.makefile("rb")
    stream.read(len(_PREFACE))
    while len(head := stream.read(9)) == 9:
        length = int.from_bytes(head[:3], "big")
        yield head[3], head[4], int.from_bytes(head[5:], "big"), stream.read(length)


def _read_all(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65536):
            pass


_OK_HEADERS = _frame(_HEADERS, _END_HEADERS, 1, _STATUS_200)
_OPEN_HEADERS = _frame(_HEADERS, 0, 1, _STATUS_200)
_PING_FRAME = _frame(_PING, 0, 0, b"endless!")

_TALKS: dict[str, Callable[[socket.socket], None]] = {
    "window_update": lambda client: _flood_and_read(client, _HELLO, _frame(_WINDOW_UPDATE, 0, 0, b"\0\0\0\1")),
    "ping": lambda client: _flood_and_read(client, _HELLO, _PING_FRAME),
    "ping_ack": lambda client: _flood_and_read(client, _HELLO, _frame(_PING, _ACK, 0, b"endless!")),
    "settings": lambda client: _flood_and_read(client, _HELLO, _frame(_SETTINGS, 0, 0, b"\0\3\0\0\0\x64")),
    "unknown": lambda client: _flood_and_read(client, _HELLO, _frame(_UNKNOWN, 0, 0, b"x" * 1000)),
    "unread": lambda client: _flood(client, _HELLO, _PING_FRAME),
    "no_settings": lambda client: _flood_and_read(client, b"", _PING_FRAME),
    "bad_settings": lambda client: _flood_and_read(client, b"", _frame(_SETTINGS, 0, 0, b"short")),
    "other_stream": lambda client: _answer(client, b"", _frame(_DATA, 0, 7)),
    "bytes": lambda client: _trickle(client, _HELLO, _PING_FRAME),
    "settings_bytes": lambda client: _trickle(client, _frame(_SETTINGS, 0, 0, bytes(15996))[:9], bytes(1)),
    "tls_bytes": lambda client: _trickle(client, b"\x16\x03\x03\x3e\x80", bytes(1)),
    "slow": _answer_slowly,
    "data": lambda client: _answer(client, _OK_HEADERS, _frame(_DATA, 0, 1, b"x" * 10_000)),
    "empty_data": lambda client: _answer(client, _OK_HEADERS, _frame(_DATA, 0, 1)),
    "headers": lambda client: _answer(client, b"", _frame(_HEADERS, _END_HEADERS, 1, _STATUS_103)),
    "continuation": lambda client: _answer(client, _OPEN_HEADERS, _frame(_CONTINUATION, 0, 1, b"\0\1a\1b" * 50)),
}


def _serve(listening: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    while True:
        client, _ = listening.accept()
        threading.Thread(target=_talk, args=(client, talk), daemon=True).start()


def _talk(client: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    with client, contextlib.suppress(OSError):
        talk(client)


def main() -> None:
    """Serves until standard input ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listening, _TALKS[sys.argv[1]]), daemon=True).start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
