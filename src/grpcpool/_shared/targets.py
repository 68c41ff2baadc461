"""The arguments of a pool over a target."""

from __future__ import annotations

from collections.abc import Callable

import grpc

Credentials = grpc.ChannelCredentials | Callable[[], grpc.ChannelCredentials]
"""Channel credentials, or a callable that creates them."""


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
