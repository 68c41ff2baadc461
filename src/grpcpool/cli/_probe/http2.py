"""A minimal HTTP/2 client on the h2 library and a blocking socket: settings, pings and calls, one at a time.

It is for probing only: a request must fit into one frame, and the client waits for each response before it sends the
next request. Nothing that a server sends makes it wait beyond its deadline, or keep more than a few megabytes.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes

from .._deadline import Deadline
from .dial import describe_error

_PREFIX = struct.Struct(">?I")
# Small, so that the deadline is checked often: thousands of tiny frames fit into more.
_CHUNK = 16384
# What a gRPC client accepts by default.
_LONGEST_BODY = 4 * 1024 * 1024
_LONGEST_REASON = 200
_FIRST_BYTES = 64
_NUMBER = re.compile(r"[0-9]{1,9}")
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class Http2Error(Exception):
    """The server does not speak HTTP/2, or stopped answering; the message says what it did."""


class _LateError(Http2Error):
    """The server did not answer by the deadline."""

    def __init__(self, deadline: Deadline, *, sends: bool) -> None:
        """`sends`: whether it sent something else meanwhile."""
        super().__init__(f"{'it kept sending, but gave ' if sends else ''}no answer within {deadline}")


@dataclasses.dataclass
class Response:
    """The response to one call."""

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    trailers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytearray = dataclasses.field(default_factory=bytearray)
    reset: int | None = None
    ended: bool = False

    @property
    def http_status(self) -> int | None:
        """The HTTP status; `None` if there was none."""
        return _number(self.headers.get(":status", ""))

    @property
    def status(self) -> int | None:
        """The gRPC status; `None` if there is none, so that the response is not gRPC's."""
        return _number(self._last("grpc-status"))

    @property
    def details(self) -> str:
        """The details of the gRPC status."""
        return urllib.parse.unquote(self._last("grpc-message"))

    @property
    def message(self) -> bytes | None:
        """The (first) message; `None` if there is none, or if it is incomplete or compressed."""
        if len(self.body) < _PREFIX.size:
            return None
        compressed, length = _PREFIX.unpack_from(self.body)
        message = bytes(self.body[_PREFIX.size : _PREFIX.size + length])
        return message if len(message) == length and not compressed else None

    def _last(self, name: str) -> str:
        return self.trailers.get(name, self.headers.get(name, ""))


class Http2Connection:
    """An HTTP/2 connection over a connected socket. Not safe for threads."""

    def __init__(self, connected: socket.socket, *, scheme: str, authority: str, deadline: Deadline) -> None:
        """Sends nothing yet.

        Args:
            connected: The socket; `close` closes it.
            scheme: ``http`` or ``https``.
            authority: The ``:authority`` of calls.
            deadline: By when the server must have given all its answers.
        """
        self.settings: dict[int, int] = {}
        self._socket = connected
        self._scheme, self._authority, self._deadline = scheme, authority, deadline
        config = h2.config.H2Configuration(client_side=True, header_encoding=None, validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        # A server may not push: nothing would ever read that.
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
        self._responses: dict[int, Response] = {}
        self._pong = b""
        self._numbers = itertools.count(1)
        self._first_bytes = b""
        self._settings_received = False
        self._goaway: str | None = None

    def handshake(self) -> None:
        """Sends the HTTP/2 preface, and returns when the server has sent its settings.

        Raises:
            Http2Error: The server speaks something else, or nothing.
        """
        self._h2.initiate_connection()
        try:
            self._receive_until(lambda: self._settings_received)
        except Http2Error as error:
            raise Http2Error(self._explain_failed_handshake(error)) from error

    def ping(self) -> float:
        """Returns the round-trip time of a PING, in seconds.

        Raises:
            Http2Error: There was no answer.
        """
        self._check_open()
        payload = next(self._numbers).to_bytes(8, "big")
        began = time.perf_counter()
        self._h2.ping(payload)
        self._receive_until(lambda: payload == self._pong)
        return time.perf_counter() - began

    def call(self, path: str, request: bytes) -> Response:
        """Makes one call with one request; returns the response.

        Raises:
            Http2Error: The call did not end.
        """
        self._check_open()
        number = self._h2.get_next_available_stream_id()
        response = self._responses[number] = Response()
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "grpcpool-probe"),
        ]
        try:
            self._h2.send_headers(number, headers)
            self._h2.send_data(number, _PREFIX.pack(False, len(request)) + request, end_stream=True)
        except h2.exceptions.ProtocolError as error:
            raise Http2Error(f"the server allows no call: {error}") from error
        self._receive_until(lambda: response.ended)
        return response

    def close(self) -> None:
        """Closes the connection and the socket, without waiting."""
        try:
            self._socket.settimeout(0.0)
            self._h2.close_connection()
            self._socket.sendall(self._h2.data_to_send())
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            self._socket.close()

    def _check_open(self) -> None:
        """Raises an error if the server has said that it closes the connection, also together with its settings."""
        if self._goaway is not None:
            raise Http2Error(self._goaway)

    def _receive_until(self, met: Callable[[], bool]) -> None:
        received = False
        try:
            while True:
                self._socket.settimeout(self._deadline.timeout())
                self._socket.sendall(self._h2.data_to_send())
                if met():
                    return
                self._check_open()
                self._socket.settimeout(self._deadline.timeout())
                self._receive(self._socket.recv(_CHUNK))
                received = True
        except TimeoutError as error:
            raise _LateError(self._deadline, sends=received) from error
        except OSError as error:
            raise Http2Error(describe_error(error, self._deadline)) from error
        except h2.exceptions.NoSuchStreamError as error:
            raise Http2Error(f"the server violated HTTP/2: stream {error.stream_id} is not open") from error
        except h2.exceptions.ProtocolError as error:
            raise Http2Error(f"the server violated HTTP/2: {error}") from error

    def _receive(self, data: bytes) -> None:
        if not data:
            raise Http2Error("the server closed the connection")
        self._first_bytes += data[: max(0, _FIRST_BYTES - len(self._first_bytes))]
        for event in self._h2.receive_data(data):
            self._handle_event(event)

    def _handle_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self._settings_received = True
                self.settings |= {int(code): changed.new_value for code, changed in event.changed_settings.items()}
            case h2.events.PingAckReceived():
                self._pong = event.ping_data
            case h2.events.ConnectionTerminated():
                reason = (event.additional_data or b"")[:_LONGEST_REASON].decode(errors="backslashreplace")
                self._goaway = f"the server closed the connection (GOAWAY {event.error_code} {reason}".rstrip() + ")"
            case _:
                self._handle_call_event(event)

    def _handle_call_event(self, event: h2.events.Event) -> None:
        response = self._responses.get(getattr(event, "stream_id", None) or 0)
        if response is None:
            return
        match event:
            case h2.events.ResponseReceived():
                response.headers = _decoded(event.headers)
            case h2.events.TrailersReceived():
                response.trailers = _decoded(event.headers)
            case h2.events.DataReceived():
                response.body += event.data
                if len(response.body) > _LONGEST_BODY:
                    raise Http2Error(f"the server's response is longer than {_LONGEST_BODY >> 20} MiB")
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
            case h2.events.StreamReset():
                response.reset, response.ended = int(event.error_code or 0), True
            case h2.events.StreamEnded():
                response.ended = True

    def _explain_failed_handshake(self, failure: Http2Error) -> str:
        """Explains why the handshake failed, by the first bytes that the server sent."""
        if self._first_bytes.startswith(b"HTTP/1"):
            return "the server speaks HTTP/1, not HTTP/2"
        if self._first_bytes.startswith(_TLS_RECORDS):
            return "the server speaks TLS: try with --tls"
        if _begins_with_settings(self._first_bytes):
            late = isinstance(failure, _LateError)
            return f"the server sent no HTTP/2 settings within {self._deadline}" if late else str(failure)
        if self._first_bytes:
            return "the server does not speak HTTP/2"
        if self._scheme == "http":
            return f"{failure}: it may speak TLS (--tls), or not HTTP/2"
        return f"{failure}: it may require a client certificate (--cert, --key), or not speak HTTP/2"


def _begins_with_settings(data: bytes) -> bool:
    """Whether these first bytes are the head of a SETTINGS frame, as far as there are any (RFC 9113, 3.4 and 4.1)."""
    return bool(data) and data[3:4] in (b"", b"\x04") and not any(data[5:9])


def _decoded(headers: Any) -> dict[str, str]:
    """Returns names and values as text, whatever bytes a server has sent."""
    return {name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace") for name, value in headers}


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def announced_setting(settings: dict[int, int], code: SettingCodes) -> int | None:
    """Returns the value of a setting; `None` if the server did not announce it."""
    return settings.get(int(code))
