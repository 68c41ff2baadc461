"""Targets as gRPC writes them, and the addresses behind them.

Of gRPC's schemes those are understood that name addresses or a host: ``dns``, ``ipv4``, ``ipv6``, ``unix`` and
``unix-abstract``; without a scheme a target is a host. Like gRPC, a target without a port means 443.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket

from ._failure import CommandError, UsageError

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix-abstract|unix):(.*)", re.DOTALL)
_FOREIGN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HTTPS = 443
_PORTS = 65535


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host (an IP address) and a port, or a socket of the file system."""

    host: str
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """As gRPC writes it."""
        if self.path:
            return f"unix-abstract:{self.path[1:]}" if self.path.startswith("\0") else f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A target that was understood.

    Attributes:
        text: As it was given.
        host: What the certificate has to be for.
        authority: The ``:authority`` of calls.
        port: Its (first) port; 0 if it has none.
        is_name: Whether a name is to be resolved.
        fixed: The addresses, if they stand in the target.
    """

    text: str
    host: str
    authority: str
    port: int
    is_name: bool = False
    fixed: tuple[Address, ...] = ()

    def addresses(self) -> tuple[Address, ...]:
        """What the target resolves to, each once.

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
    """Understands a target.

    Raises:
        UsageError: It is none, or of a scheme that is gRPC's alone.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        if (foreign := _FOREIGN.match(text)) is not None:
            raise UsageError(f"{text}: the scheme {foreign[1]} is not understood: use dns, ipv4, ipv6 or unix")
        return _of_host(text, text)
    scheme, rest = match.groups()
    match scheme:
        case "dns":
            # dns://server/host:port names a server of names, which the system chooses here.
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
            raise UsageError(f"{text}: {host!r} is no {scheme} address")
    addresses = tuple(Address(host, port) for host, port in pairs)
    return Target(text, addresses[0].host, str(addresses[0]), addresses[0].port, fixed=addresses)


def _of_path(text: str, path: str) -> Target:
    if not path.strip("\0"):
        raise UsageError(f"{text}: names no socket")
    return Target(text, "localhost", "localhost", 0, fixed=(Address("", path=path),))


def _split(text: str, host_and_port: str) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare v6 address."""
    match = re.fullmatch(r"\[([^\]]+)\](?::(.*))?|([^:]+)(?::(.*))?|([0-9A-Fa-f:.%]+)", host_and_port)
    if match is None:
        raise UsageError(f"{text}: is no target: expected host:port, dns:///host:port, ipv4:, ipv6: or unix:")
    host = match[1] or match[3] or match[5]
    port = next((port for port in (match[2], match[4]) if port is not None), str(_HTTPS))
    if not port.isdecimal() or not 0 < int(port) <= _PORTS:
        raise UsageError(f"{text}: {port!r} is no port")
    return host, int(port)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
