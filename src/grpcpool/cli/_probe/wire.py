"""One HTTP/2 connection, spoken by the h2 library over a blocking socket: settings, pings and calls, one at a time.

It is made for looking, not for work: requests have to fit into one frame, and each answer is awaited before the next
request.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes

from .dial import words

_PREFIX = struct.Struct(">?I")
_CHUNK = 65536
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class WireError(Exception):
    """The server does not speak, or does not go on; the message says what it did."""


@dataclasses.dataclass
class Answer:
    """What came of one call."""

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    trailers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    ended: bool = False

    @property
    def http_status(self) -> int | None:
        """The status of HTTP; `None` if there was none."""
        status = self.headers.get(":status", "")
        return int(status) if status.isdecimal() else None

    @property
    def status(self) -> int | None:
        """The status of gRPC; `None` if it has none, so that this was no gRPC."""
        status = self._last("grpc-status")
        return int(status) if status.isdecimal() else None

    @property
    def details(self) -> str:
        """The words of that status."""
        return urllib.parse.unquote(self._last("grpc-message"))

    def messages(self) -> Iterator[bytes]:
        """Yields each message that came whole and not compressed."""
        rest = self.body
        while len(rest) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(rest)
            message, rest = rest[_PREFIX.size : _PREFIX.size + length], rest[_PREFIX.size + length :]
            if len(message) == length and not compressed:
                yield message

    def _last(self, name: str) -> str:
        return self.trailers.get(name, self.headers.get(name, ""))


class Wire:
    """A connection that was dialled. Not safe for threads."""

    def __init__(self, connected: socket.socket, *, scheme: str, authority: str, timeout: float) -> None:
        """Says nothing yet.

        Args:
            connected: What to speak over; closed by `close`.
            scheme: ``http`` or ``https``.
            authority: The ``:authority`` of calls.
            timeout: Seconds that the server may take for each answer.
        """
        self.settings: dict[int, int] = {}
        self._socket = connected
        self._scheme, self._authority, self._timeout = scheme, authority, timeout
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._answers: dict[int, Answer] = {}
        self._pongs: set[bytes] = set()
        self._numbers = itertools.count(1)
        self._heard = b""
        self._greeted = False
        self._goodbye: str | None = None

    def greet(self) -> None:
        """Says that we speak HTTP/2, and returns when the server has said so, too, with its settings.

        Raises:
            WireError: It speaks something else, or nothing.
        """
        self._h2.initiate_connection()
        try:
            self._listen_until(lambda: self._greeted)
        except WireError as error:
            raise WireError(self._guess(str(error))) from error

    def ping(self) -> float:
        """Returns the seconds that a PING takes there and back.

        Raises:
            WireError: It does not come back.
        """
        payload = next(self._numbers).to_bytes(8, "big")
        began = time.perf_counter()
        self._h2.ping(payload)
        self._listen_until(lambda: payload in self._pongs)
        return time.perf_counter() - began

    def call(self, path: str, request: bytes) -> Answer:
        """Makes one call with one request; returns what came of it.

        Raises:
            WireError: It does not end.
        """
        number = self._h2.get_next_available_stream_id()
        answer = self._answers[number] = Answer()
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "grpcpool-probe"),
        ]
        self._h2.send_headers(number, headers)
        self._h2.send_data(number, _PREFIX.pack(False, len(request)) + request, end_stream=True)
        self._listen_until(lambda: answer.ended)
        return answer

    def close(self) -> None:
        """Hangs up."""
        try:
            self._h2.close_connection()
            self._socket.sendall(self._h2.data_to_send())
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            self._socket.close()

    def _listen_until(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                self._socket.sendall(self._h2.data_to_send())
                if met():
                    return
                if self._goodbye is not None:
                    raise WireError(self._goodbye)
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                self._hear(self._socket.recv(_CHUNK))
        except OSError as error:
            raise WireError(words(error, self._timeout)) from error
        except h2.exceptions.ProtocolError as error:
            raise WireError(f"the server does not speak HTTP/2 as it should: {error}") from error

    def _hear(self, data: bytes) -> None:
        if not data:
            raise WireError("the server closed the connection")
        self._heard = self._heard or data[:64]
        for event in self._h2.receive_data(data):
            self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self._greeted = True
                self.settings |= {int(code): changed.new_value for code, changed in event.changed_settings.items()}
            case h2.events.PingAckReceived():
                self._pongs.add(event.ping_data)
            case h2.events.ConnectionTerminated():
                said = (event.additional_data or b"").decode(errors="replace")
                self._goodbye = f"the server said goodbye (GOAWAY {event.error_code} {said}".rstrip() + ")"
            case _:
                self._take_of_call(event)

    def _take_of_call(self, event: h2.events.Event) -> None:
        answer = self._answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        match event:
            case h2.events.ResponseReceived():
                answer.headers = dict(_decoded(event.headers))
            case h2.events.TrailersReceived():
                answer.trailers = dict(_decoded(event.headers))
            case h2.events.DataReceived():
                answer.body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
            case h2.events.StreamReset():
                answer.reset, answer.ended = int(event.error_code or 0), True
            case h2.events.StreamEnded():
                answer.ended = True

    def _guess(self, failure: str) -> str:
        """What a server speaks that does not greet, by the first it said."""
        if self._heard.startswith(b"HTTP/1"):
            return "the server speaks HTTP/1, not HTTP/2"
        if self._heard.startswith(_TLS_RECORDS):
            return "the server speaks TLS: try with --tls"
        if self._heard:
            return "the server does not speak HTTP/2"
        if self._scheme == "http":
            return f"{failure}: it may speak TLS (--tls), or not HTTP/2"
        return f"{failure}: it may want a client's certificate (--cert, --key), or not speak HTTP/2"


def _decoded(headers: object) -> Iterator[tuple[str, str]]:
    """Names and values as text, whatever h2 gives."""
    for name, value in headers:  # type: ignore[attr-defined]
        yield _text(name), _text(value)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def announced(settings: dict[int, int], code: SettingCodes) -> int | None:
    """The value of a setting, if the server announced one."""
    return settings.get(int(code))
