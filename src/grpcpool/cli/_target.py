"""Targets in gRPC's syntax, and the addresses that they resolve to.

Supported are the schemes ``dns``, ``ipv4``, ``ipv6``, ``unix`` and ``unix-abstract``; a target without a scheme is a
host. As in gRPC, the default port is 443.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket

from ._errors import CommandError, UsageError, number_of

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix-abstract|unix):(.*)", re.DOTALL)
_OTHER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEFAULT_PORT = 443
_HIGHEST_PORT = 65535


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: an IP address and a port, or a Unix socket."""

    host: str
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Returns the address in gRPC's syntax."""
        if self.path:
            return f"unix-abstract:{self.path[1:]}" if self.path.startswith("\0") else f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A parsed target.

    Attributes:
        text: The target as the user typed it.
        host: The name that the certificate must match.
        authority: The ``:authority`` of calls.
        port: The (first) port; 0 if there is none.
        is_name: Whether the host is a name that must be resolved.
        fixed: The addresses, if the target contains them.
    """

    text: str
    host: str
    authority: str
    port: int
    is_name: bool = False
    fixed: tuple[Address, ...] = ()

    @property
    def with_port(self) -> str:
        """The text, and the port if that is not in it."""
        return self.text if self.port == 0 or f":{self.port}" in self.text else f"{self.text} (port {self.port})"

    def addresses(self) -> tuple[Address, ...]:
        """Returns the addresses that the target resolves to, each once.

        Raises:
            CommandError: The name does not resolve.
        """
        if self.fixed:
            return self.fixed
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise CommandError(f"{self.host}: the name does not resolve ({_reason(error)})") from error
        return tuple(dict.fromkeys(Address(str(where[0]), self.port) for *_, where in found))


def parse_target(text: str) -> Target:
    """Parses a target.

    Raises:
        UsageError: The target is not valid, or has a scheme that only gRPC supports.
    """
    if not text.strip():
        raise UsageError(f"{text!r}: the target is empty: expected host:port, for example")
    match = _SCHEME.fullmatch(text)
    if match is None:
        if (other := _OTHER_SCHEME.match(text)) is not None:
            raise UsageError(f"{text}: scheme {other[1]} is not supported: use dns, ipv4, ipv6 or unix")
        return _of_host(text, text)
    scheme, rest = match.groups()
    match scheme:
        case "dns":
            # dns://server/host:port names a DNS server; here the system's own is used.
            return _of_host(text, re.sub(r"^//[^/]*/", "", rest))
        case "unix":
            return _of_path(text, rest.removeprefix("//"))
        case "unix-abstract":
            return _of_path(text, f"\0{rest}")
        case _:
            return _of_literals(text, scheme, rest)


def _of_host(text: str, host_and_port: str) -> Target:
    host, port = _split(text, host_and_port)
    literal = _is_literal(host)
    fixed = (Address(host, port),) if literal else ()
    return Target(text, host, str(Address(host, port)), port, is_name=not literal, fixed=fixed)


def _of_literals(text: str, scheme: str, rest: str) -> Target:
    pairs = [_split(text, part) for part in rest.lstrip("/").split(",")]
    version = int(scheme[-1])
    for host, _ in pairs:
        if not _is_literal(host) or ipaddress.ip_address(host).version != version:
            raise UsageError(f"{text}: {host!r} is not a valid {scheme} address")
    addresses = tuple(Address(host, port) for host, port in pairs)
    return Target(text, addresses[0].host, str(addresses[0]), addresses[0].port, fixed=addresses)


def _of_path(text: str, path: str) -> Target:
    if not path.strip("\0"):
        raise UsageError(f"{text}: the path of the socket is missing")
    return Target(text, "localhost", "localhost", 0, fixed=(Address("", path=path),))


def _split(text: str, host_and_port: str) -> tuple[str, int]:
    """Returns host and port of ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare v6 address."""
    match = re.fullmatch(r"\[([^\]]+)\](?::(.*))?|([^:]+)(?::(.*))?|((?=.*:.*:)[0-9A-Fa-f:.%]+)", host_and_port)
    if match is None:
        raise UsageError(f"{text}: not a valid target: expected host:port, dns:///host:port, ipv4:, ipv6: or unix:")
    host = match[1] or match[3] or match[5]
    port = next((port for port in (match[2], match[4]) if port is not None), str(_DEFAULT_PORT))
    number = number_of(port)
    if number is None or not 0 < number <= _HIGHEST_PORT:
        raise UsageError(f"{text}: {port!r} is not a valid port")
    return host, number


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
