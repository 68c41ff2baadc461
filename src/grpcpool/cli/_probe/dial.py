"""Connects to one address and measures how long it takes: TCP or a Unix socket, then TLS if requested."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time

from .._deadline import Deadline
from .._target import Address


class DialError(Exception):
    """The connection failed; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class DialledSocket:
    """A connected socket and how it was connected. Durations are seconds.

    Attributes:
        socket: The socket.
        connect_seconds: How long TCP took.
        tls_seconds: How long TLS took; `None` without TLS.
        tls_version: OpenSSL's name of the version; `None` without TLS.
        alpn: The protocol that the server chose by ALPN; `None` if it chose none, or without TLS.
    """

    socket: socket.socket
    connect_seconds: float
    tls_seconds: float | None = None
    tls_version: str | None = None
    alpn: str | None = None


def dial(address: Address, context: ssl.SSLContext | None, name: str, deadline: Deadline) -> DialledSocket:
    """Connects to an address.

    Args:
        address: The address.
        context: For TLS; `None` to connect without TLS.
        name: The name that the certificate must match.
        deadline: By when TCP and TLS must be ready.

    Raises:
        DialError: The connection failed.
    """
    began = time.perf_counter()
    try:
        plain = _connect(address, deadline.timeout())
    except OSError as error:
        raise DialError(describe_error(error, deadline)) from error
    connected = time.perf_counter()
    if context is None:
        return DialledSocket(plain, connected - began)
    try:
        # For the whole handshake, however many reads it takes.
        plain.settimeout(deadline.timeout())
        secure = context.wrap_socket(plain, server_hostname=name)
    except TimeoutError as error:
        plain.close()
        raise DialError(f"the server did not complete the TLS handshake within {deadline}") from error
    except OSError as error:
        plain.close()
        raise DialError(describe_error(error, deadline)) from error
    taken = time.perf_counter() - connected
    return DialledSocket(secure, connected - began, taken, secure.version(), secure.selected_alpn_protocol())


def _connect(address: Address, timeout: float) -> socket.socket:
    if not address.path:
        connected = socket.create_connection((address.host, address.port), timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system does not support Unix sockets")
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(timeout)
    try:
        local.connect(address.path)
    except BaseException:
        local.close()
        raise
    return local


def describe_error(error: OSError, deadline: Deadline) -> str:
    """Describes what went wrong, for the user."""
    match error:
        case TimeoutError():
            return f"no answer within {deadline}"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionResetError() | BrokenPipeError() | ssl.SSLEOFError():
            return "the server reset the connection"
        case FileNotFoundError():
            return "the socket does not exist"
        case ssl.SSLError():
            return _describe_tls_error(error)
    return error.strerror or str(error)


def _describe_tls_error(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate was rejected: {error.verify_message}"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "the server does not speak TLS on this port: try without --tls"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return "the server rejected the TLS handshake: it may require a client certificate (--cert, --key)"
    if "NO_APPLICATION_PROTOCOL" in reason:
        return "the server speaks TLS, but not HTTP/2 (it rejected ALPN h2)"
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"
