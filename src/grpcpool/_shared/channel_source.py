"""What of the user's makes the connections of a pool: its factory and its prime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ChannelSource:
    """The two callables. Only the pool holds them, and its background work knows them weakly.

    They are often methods of the object that has the pool. Held by a thread that works for the pool, they would keep
    both for ever, and a pool that is dropped without `close()` would never be closed.
    """

    __slots__ = ("__weakref__", "factory", "prime")

    def __init__(self, factory: Callable[[], Any], prime: Callable[[Any], object] | None) -> None:
        """See `ChannelPool` and `PoolConfig`."""
        self.factory = factory
        self.prime = prime
