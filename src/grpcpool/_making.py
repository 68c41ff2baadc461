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


def check_credentials(credentials: Credentials) -> None:
    """Looks whether these are credentials, or can make them.

    Raises:
        TypeError: They are neither.
    """
    if not callable(credentials) and not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"credentials must be grpc.ChannelCredentials, or a callable that makes them: {credentials!r}")
