"""What creates the channels of a pool: the user's factory, and prime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ChannelSource:
    """The two callables. Only the pool holds them; its background work refers to them weakly.

    They are often methods of the object that owns the pool. If a thread of the pool held them, they would keep both
    alive for ever, and a pool dropped without `close()` would never be closed.
    """

    __slots__ = ("__weakref__", "factory", "prime")

    def __init__(self, factory: Callable[[], Any], prime: Callable[[Any], object] | None) -> None:
        """See `ChannelPool` and `PoolConfig`."""
        self.factory = factory
        self.prime = prime
