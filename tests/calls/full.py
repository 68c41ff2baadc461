"""A pool whose one place is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpcpool import ChannelPool
from support.call_server import UU, new_tag


class Full:
    """A pool whose one place is taken until it is freed."""

    def __init__(self, pool: ChannelPool) -> None:
        """Takes the place."""
        self.pool = pool
        multicallable: Any = pool.unary_unary(UU)
        self._blocker = multicallable.future(f"hold:{new_tag()}".encode(), timeout=60)
        assert pool.stats().in_flight == 1

    def make_room(self) -> None:
        """Frees the place."""
        self._blocker.cancel()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self.pool.stats().waiting


MakeFull = Callable[..., Full]
