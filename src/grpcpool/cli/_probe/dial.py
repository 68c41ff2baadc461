"""Connects to one address, timed: TCP or a socket of the file system, then TLS if wanted."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time

from .._target import Address


class DialError(Exception):
    """There is no connection; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dialled:
    """A connection. Durations are seconds.

    Attributes:
        socket: What to speak over.
        connect_seconds: How long TCP took.
        tls_seconds: How long TLS took; `None` without.
        tls_version: As OpenSSL names it; `None` without TLS.
        alpn: The protocol that the server chose by ALPN; `None` if it chose none, or without TLS.
    """

    socket: socket.socket
    connect_seconds: float
    tls_seconds: float | None = None
    tls_version: str | None = None
    alpn: str | None = None


def dial(address: Address, context: ssl.SSLContext | None, name: str, timeout: float) -> Dialled:
    """Connects.

    Args:
        address: Where to.
        context: For TLS; `None` for none.
        name: What the certificate has to be for.
        timeout: Seconds, for TCP and for TLS each.

    Raises:
        DialError: It cannot.
    """
    began = time.perf_counter()
    try:
        plain = _connect(address, timeout)
    except OSError as error:
        raise DialError(words(error, timeout)) from error
    connected = time.perf_counter()
    if context is None:
        return Dialled(plain, connected - began)
    try:
        secure = context.wrap_socket(plain, server_hostname=name)
    except OSError as error:
        plain.close()
        raise DialError(words(error, timeout)) from error
    taken = time.perf_counter() - connected
    return Dialled(secure, connected - began, taken, secure.version(), secure.selected_alpn_protocol())


def _connect(address: Address, timeout: float) -> socket.socket:
    if not address.path:
        connected = socket.create_connection((address.host, address.port), timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no unix sockets")
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(timeout)
    try:
        local.connect(address.path)
    except BaseException:
        local.close()
        raise
    return local


def words(error: OSError, timeout: float) -> str:
    """What went wrong, in words for a user."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionResetError() | BrokenPipeError() | ssl.SSLEOFError():
            return "the server broke the connection off"
        case FileNotFoundError():
            return "there is no such socket"
        case ssl.SSLError():
            return _words_of_tls(error)
    return error.strerror or str(error)


def _words_of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate was refused: {error.verify_message}"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "the server does not speak TLS here: try without --tls"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return "the server refused the handshake: it may want a client's certificate (--cert, --key)"
    if "NO_APPLICATION_PROTOCOL" in reason:
        return "the server speaks TLS, but no HTTP/2 (it refused ALPN h2)"
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"
