"""Where a target leads: what its text says, and what of it is left to gRPC.

The connections of a pool are dealt out over the addresses of `host:port` and `dns:` names, over `ipv4:` and `ipv6:`
lists, and over what the user's own `addresses` returns. Left to gRPC are other schemes, names with a DNS server of
their own (`dns://8.8.8.8/name`), targets behind an HTTP proxy, and service configs that name a load-balancing policy,
or come from DNS. There one channel may lead anywhere, and the pool does not know where.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from .._grpc.options import has_policy, resolution_interval, uses_proxy
from .._machine.addresses import Addressing

AddressSource = Callable[[], Any]
"""Returns the current addresses, such as ``["10.0.0.7:50051"]``; on asyncio it may be a coroutine function."""

_DNS: Final = re.compile(r"(?:dns:(?:///|/)?)?(?!/)(.+)", re.ASCII | re.IGNORECASE)
_LIST: Final = re.compile(r"(ipv4|ipv6):(?:///|/)?(?!/)(.+)", re.ASCII | re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:(?![0-9]+$)", re.ASCII | re.IGNORECASE)
_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]/%]+\]|[^\[\]:/%,]+)(?::([a-z0-9-]+))?", re.ASCII | re.IGNORECASE)

# Schemes that gRPC may know. Any other text before a colon is a host.
_SCHEMES: Final = ("unix", "unix-abstract", "vsock", "xds", "google-c2p", "google-c2p-experimental", "passthrough")

_EVERY: Final = 30.0

_DEFAULT_PORT: Final = "443"
_MOST_PORT: Final = 65_535


class Destination(NamedTuple):
    """Where a target leads.

    Attributes:
        addressing: How its addresses are known.
        host: The name to look up; `None` if none is.
        port: Its port: a number, or the name of a service.
        authority: The name of the server, which TLS verifies and which calls carry; `None` for that of gRPC.
        is_left_to_grpc: Whether the pool cannot know where channels lead.
    """

    addressing: Addressing = Addressing()
    host: str | None = None
    port: str = _DEFAULT_PORT
    authority: str | None = None
    is_left_to_grpc: bool = False


LEFT_TO_GRPC: Final = Destination(is_left_to_grpc=True)


def destination_of(
    target: str, options: Sequence[tuple[str, Any]], addresses: AddressSource | None, *, spread: bool
) -> Destination:
    """Where a pool over `target` leads.

    Args:
        target: As for `grpc.insecure_channel`.
        options: Channel options.
        addresses: The user's own discovery, if there is one.
        spread: Whether connections are dealt out at all.
    """
    every = resolution_interval(options)
    if addresses is not None:
        host = _host_of(target)
        return Destination(
            Addressing(looked_up=True, discovered=True, every=every), authority=None if host is None else host[0]
        )
    if has_policy(options):
        return LEFT_TO_GRPC
    if (listed := _LIST.fullmatch(target)) is not None:
        return _to_list(listed[2].split(","), every, spread=spread)
    return _to_host(target, options, every, spread=spread)


def _to_host(target: str, options: Sequence[tuple[str, Any]], every: float, *, spread: bool) -> Destination:
    host = _host_of(target)
    if host is None:
        return LEFT_TO_GRPC
    text, name, port = host
    if (literal := address_of(text)) is not None:
        return Destination(Addressing(addresses=(literal,)))
    if not spread or ":" in name or uses_proxy(name, options, os.environ):
        return LEFT_TO_GRPC
    return Destination(Addressing(looked_up=True, every=every, either_family=True), name, port, authority=text)


def addressing_of(destinations: Sequence[Destination]) -> Addressing:
    """How the addresses of one target are known, or of several in an order of preference."""
    if len(destinations) == 1:
        return destinations[0].addressing
    every = min((each.addressing.every or _EVERY) for each in destinations)
    either_family = any(each.addressing.either_family for each in destinations)
    return Addressing(looked_up=True, every=every, either_family=either_family, endpoints=len(destinations))


def _to_list(texts: list[str], every: float, *, spread: bool) -> Destination:
    names = [address_of(text) for text in texts]
    known = [name for name in names if name is not None]
    if len(known) < len(names) or (len(known) > 1 and not spread):
        return LEFT_TO_GRPC
    return Destination(Addressing(addresses=known, every=every if len(known) > 1 else None))


def _host_of(target: str) -> tuple[str, str, str] | None:
    """The text after the scheme, the host and the port of a target that gRPC would look up in the DNS by default."""
    if target.partition(":")[0].lower() in _SCHEMES:
        return None
    text = _DNS.fullmatch(target)
    parts = None if text is None else _HOST_AND_PORT.fullmatch(text[1])
    if text is None or parts is None:
        return None
    return text[1], parts[1].strip("[]"), parts[2] or _DEFAULT_PORT


def address_of(text: str) -> str | None:
    """`text` in the form in which addresses are shown, such as `10.0.0.7:50051` or `[::1]:50051`.

    `None` unless it is one IP address with a port.
    """
    host, _, port = text.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    is_port = port.isascii() and port.isdecimal() and int(port) <= _MOST_PORT
    if not is_port or in_brackets != isinstance(address, ipaddress.IPv6Address):
        return None
    return f"[{address}]:{int(port)}" if in_brackets else f"{address}:{int(port)}"


def target_to(address: str) -> str:
    """The target of a channel to one address, which may also be a name with a port, or have a scheme."""
    if _SCHEME.match(address):
        return address
    if address.startswith("["):
        return f"ipv6:{address}"
    return f"dns:///{address}" if address_of(address) is None else f"ipv4:{address}"


def look_up(host: str, port: str) -> list[str]:
    """The addresses of a name. It blocks, maybe for long.

    Raises:
        OSError: The name has none.
    """
    return addresses_in(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def addresses_in(found: Iterable[tuple[Any, ...]]) -> list[str]:
    """The addresses in what `getaddrinfo` has returned, in that order."""
    names: dict[str, None] = {}
    for family, _, _, _, where in found:
        if family == socket.AF_INET6:
            # With a scope, an address is of no use to gRPC's targets.
            if not (where[3:] and where[3]):
                names[f"[{where[0]}]:{where[1]}"] = None
        elif family == socket.AF_INET:
            names[f"{where[0]}:{where[1]}"] = None
    return [*names]


def checked(found: object) -> list[str]:
    """What the user's own `addresses` has returned.

    Raises:
        TypeError: It is not a collection of text.
        ValueError: It is empty, or holds empty text.
    """
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise TypeError(f"addresses() must return text such as ['10.0.0.7:50051'], not {type(found).__name__}")
    names = [*found]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"addresses() must return text such as ['10.0.0.7:50051'], not {type(name).__name__} in it")
    if not names or not all(names):
        raise ValueError("addresses() has returned no address")
    return names
