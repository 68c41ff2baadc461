"""Calls over a pool: each takes one stream of the best connection, and gives it back when it is over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .calls import Arguments
from .endings import on_end

if TYPE_CHECKING:
    from grpcpool._slot import Slot

    from .core import Core
    from .pool import ChannelPool


class PoolCaller:
    """Runs the calls of one method on whatever connection is best when each begins."""

    def __init__(self, pool: ChannelPool, kind: str, method: str, *how: Any) -> None:
        """See `ChannelSurface._caller`."""
        self._pool = pool
        self._key = (kind, method, *how)

    def block(self, how: str, arguments: Arguments) -> Any:
        """Runs a call that is over when this returns."""
        core, slot = self._take(arguments)
        try:
            return getattr(slot.channel.multicallable(*self._key), how)(*arguments)
        finally:
            core.release(slot, 1)

    def run(self, how: str, arguments: Arguments) -> Any:
        """Begins a call; its stream is given back when it is over."""
        core, slot = self._take(arguments)
        try:
            call = getattr(slot.channel.multicallable(*self._key), how)(*arguments)
        except BaseException:
            core.release(slot, 1)
            raise
        on_end(call, partial(core.release, slot, 1), core.defer)
        return call

    def _take(self, arguments: Arguments) -> tuple[Core, Slot]:  # noqa: ARG002
        core = self._pool._core
        lease = self._pool.acquire(streams=1)
        slot = lease._place
        lease._released = True
        return core, slot
