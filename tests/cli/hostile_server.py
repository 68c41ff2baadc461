"""An HTTP/2 server in this process that answers calls with any bytes, as no honest library would send them."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes, Settings

Headers = tuple[tuple[bytes, bytes], ...]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a call.

    Attributes:
        headers: After ``:status`` and ``content-type``.
        body: The data.
        trailers: With the end of the stream; if empty, the headers or the data end it.
        status: The ``:status``.
        goaway: Debug data to close the connection with, instead of an answer.
        goaway_code: The error code to close it with.
    """

    headers: Headers = ()
    body: bytes = b""
    trailers: Headers = ()
    status: bytes = b"200"
    goaway: bytes | None = None
    goaway_code: int = 0


@contextlib.contextmanager
def hostile_server(answer: Callable[[str], Answer], settings: dict[SettingCodes, int] | None = None) -> Iterator[int]:
    """Answers calls by their path; announces `settings`. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, answer, settings or {}), daemon=True).start()
        yield listening.getsockname()[1]
        # Wakes the thread, which would otherwise keep the port.
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, answer: Callable[[str], Answer], settings: dict[SettingCodes, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_talk, args=(client, answer, settings), daemon=True).start()


def _talk(client: socket.socket, answer: Callable[[str], Answer], settings: dict[SettingCodes, int]) -> None:
    config = h2.config.H2Configuration(
        client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.local_settings = Settings(client=False, initial_values=settings)
    connection.initiate_connection()
    paths: dict[int, str] = {}
    with client, contextlib.suppress(OSError, h2.exceptions.ProtocolError):
        client.sendall(connection.data_to_send())
        while data := client.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    paths[event.stream_id or 0] = dict(event.headers)[b":path"].decode()
                elif isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id or 0
                    _send(connection, stream, answer(paths[stream]))
            client.sendall(connection.data_to_send())


def _send(connection: h2.connection.H2Connection, stream: int, answer: Answer) -> None:
    if answer.goaway is not None:
        connection.close_connection(answer.goaway_code, answer.goaway)
        return
    headers = [(b":status", answer.status), (b"content-type", b"application/grpc"), *answer.headers]
    connection.send_headers(stream, headers, end_stream=not answer.body and not answer.trailers)
    if answer.body:
        connection.send_data(stream, answer.body, end_stream=not answer.trailers)
    if answer.trailers:
        connection.send_headers(stream, list(answer.trailers), end_stream=True)
