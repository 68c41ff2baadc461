"""The arguments of a pool over a target, and where it leads."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

import grpc

Credentials = grpc.ChannelCredentials | Callable[[], grpc.ChannelCredentials]
"""Channel credentials, or a callable that creates them."""

# One IP address with a port, as gRPC's resolvers take it: with a scheme or without.
_LITERAL: Final = re.compile(r"(?:(?:ipv4|ipv6|dns):(?:///|/)?)?(\[[^\[\]]+\]|[0-9.]+):([0-9]{1,5})", re.ASCII)
_MOST_PORT: Final = 65_535


class TargetFactory:
    """A pool's factory of channels to one target, which it knows."""

    __slots__ = ("_create", "target")

    def __init__(self, target: str, create: Callable[[], Any]) -> None:
        """Creates channels with `create`, which lead to `target`."""
        self.target = target
        self._create = create

    def __call__(self) -> Any:
        """A new channel."""
        return self._create()


def literal_address(target: str | None) -> str | None:
    """The address to which every connection to `target` leads, such as `10.0.0.7:50051` or `[::1]:50051`.

    `None` unless the target is one IP address with a port: names are resolved by gRPC, which does not say to what.
    """
    literal = None if target is None else _LITERAL.fullmatch(target)
    if literal is None:
        return None
    host, port = literal[1], int(literal[2])
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    in_brackets = host.startswith("[")
    if port > _MOST_PORT or in_brackets != isinstance(address, ipaddress.IPv6Address):
        return None
    return f"[{address}]:{port}" if in_brackets else f"{address}:{port}"


def named_after(target: str | bytes) -> str:
    """The default name of a pool over `target`.

    Raises:
        TypeError: It is not a valid target. gRPC, too, raises at once.
    """
    if isinstance(target, bytes):
        # Undocumented, but gRPC accepts it.
        return target.decode(errors="backslashreplace")
    if not isinstance(target, str):
        raise TypeError(f"target must be a str, not {target!r}")
    return target


def check_credentials(credentials: Credentials) -> None:
    """Checks that these are credentials, or a callable that may create them.

    Raises:
        TypeError: They are neither. The message does not show them: they may be the text of a key.
    """
    if not callable(credentials):
        _check(credentials, "credentials must be grpc.ChannelCredentials, or a callable that returns them")


def credentials_of(credentials: Credentials) -> grpc.ChannelCredentials:
    """The credentials for one more channel.

    Raises:
        TypeError: The callable returned something else.
    """
    if not callable(credentials):
        return credentials
    made = credentials()
    _check(made, "credentials() must return grpc.ChannelCredentials")
    return made


def _check(credentials: object, rule: str) -> None:
    if not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"{rule}, not {type(credentials).__name__}")
