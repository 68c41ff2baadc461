"""Keeps pools from consisting of pools.

Some put `insecure_channel` and `secure_channel` in the place of gRPC's own, to have every channel of a program pooled;
and pools look gRPC's up each time they make a channel, for instrumentation replaces them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import grpc

Credentials = grpc.ChannelCredentials | Callable[[], grpc.ChannelCredentials]
"""Channel credentials, or what makes them."""

_making = threading.local()


@contextlib.contextmanager
def making_a_channel() -> Iterator[None]:
    """Within, this thread makes a channel for a pool, not a pool."""
    _making.a_channel = True
    try:
        yield
    finally:
        _making.a_channel = False


def is_making_a_channel() -> bool:
    """Whether what this thread is about to make is a channel for a pool."""
    return getattr(_making, "a_channel", False)


def named_after(target: str | bytes) -> str:
    """What a pool over `target` is called if it is given no name.

    Raises:
        TypeError: It is no target. gRPC, too, says so at once.
    """
    if isinstance(target, bytes):
        # Which gRPC takes, undocumented.
        return target.decode(errors="backslashreplace")
    if not isinstance(target, str):
        raise TypeError(f"target must be a str, not {target!r}")
    return target


def check_credentials(credentials: Credentials) -> None:
    """Looks whether these are credentials, or can make them.

    Raises:
        TypeError: They are neither. What they are is not told: it may be the text of a key.
    """
    if not callable(credentials):
        _check(credentials, "credentials must be grpc.ChannelCredentials, or a callable that returns them")


def credentials_of(credentials: Credentials) -> grpc.ChannelCredentials:
    """The credentials for one more channel.

    Raises:
        TypeError: What was to make them made something else.
    """
    if not callable(credentials):
        return credentials
    made = credentials()
    _check(made, "credentials() must return grpc.ChannelCredentials")
    return made


def _check(credentials: object, rule: str) -> None:
    if not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"{rule}, not {type(credentials).__name__}")
