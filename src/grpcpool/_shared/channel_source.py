"""What creates the channels of a pool: the user's factory, and prime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .targets import TargetFactory, literal_address


class ChannelSource:
    """The two callables. Only the pool holds them; its background work refers to them weakly.

    They are often methods of the object that owns the pool. If a thread of the pool held them, they would keep both
    alive for ever, and a pool dropped without `close()` would never be closed.
    """

    __slots__ = ("__weakref__", "address", "factory", "prime", "target")

    def __init__(self, factory: Callable[[], Any], prime: Callable[[Any], object] | None) -> None:
        """See `ChannelPool` and `PoolConfig`."""
        self.factory = factory
        self.prime = prime
        # What the channels connect to, and the one address to which they lead; `None` if that is not known.
        self.target = factory.target if isinstance(factory, TargetFactory) else None
        self.address = literal_address(self.target)
