"""When connections are opened: for what waits and for `min_size`, ahead of need, and to each address.

`fill` dials what waiters and `min_size` need; `grow` dials ahead of need when every ready slot carries
`target_streams`, one evaluation at a time and at most doubling; while the pool is in use, `cover` dials to each address
that is wanted, see `addresses.py`. A slot that drains only because there were too many is taken back before anything is
dialled. After a failure there is one attempt at a time, with backoff. A dial that is not ready after a second counts no
longer as one under way: another is begun beside it. Whichever is ready first ends the others that are not needed then,
see `shrinking.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.config import Mode
from .._values.slot_states import CloseReason, SlotState
from .fleet import Fleet
from .slot import Slot


class Growing:
    """Opens the connections of one pool that are missing."""

    def __init__(self, fleet: Fleet) -> None:
        """For the connections of `fleet`."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._places = fleet.places
        self._addresses = fleet.addresses
        self._target = fleet.target
        config = fleet.config
        self._max_overflow = config.max_overflow if config.mode is Mode.LOOSE else 0
        # The number of connections that was too small the last time the pool grew, and the load that showed it.
        self.outgrown, self.outgrown_at = 0, math.inf

    def shortage(self, asked: int, least: int = 0) -> int:
        """How many more connections are needed: for `asked` streams that wait, and for `min_size`, or `least`."""
        if not self._fleet.active:
            return 0
        hanging = self._slots.opening - self._slots.successors - self._slots.under_way
        missing = max(self._fleet.min_size, least) - (self._slots.connections - hanging)
        return max(-(-asked // self._target) - self._slots.under_way, missing)

    def fill(self, asked: int, has_stream_asks: Callable[[], bool], now: float, least: int = 0) -> list[Slot]:
        """Dials what is needed, as far as bounds and backoff allow; returns draining slots taken back instead.

        These carry calls. If only whole connections are asked for, they are taken back for nothing but `min_size`.
        """
        bound = self._fleet.max_size + self._max_overflow
        if self._slots.connections >= bound:
            return []
        shortage = self.shortage(asked, least)
        if shortage > 0 and now < self._fleet.unclear_until:
            self._fleet.alarm_at(self._fleet.unclear_until)
            shortage = self.shortage(0, least)
        if shortage <= 0:
            return []
        restored = self._restore(shortage if has_stream_asks() else self.shortage(0, least), now)
        for _ in range(min(shortage - len(restored), self._may_open(now, bound))):
            self._fleet.dial(now)
        if self._addresses.retry_at > now:
            self._fleet.alarm_at(self._addresses.retry_at)
        return restored

    def cover(self, now: float) -> None:
        """Dials to each address that is wanted and has no connection, as far as there may be more."""
        if self._fleet.active and self._fleet.usage.in_use:
            for address in self._addresses.uncovered(now)[: max(0, self._fleet.max_size - self._slots.connections)]:
                self._fleet.dial(now, address=address)

    def grow(self, now: float) -> list[Slot]:
        """Dials ahead of need, if every ready slot carries the target; returns draining slots taken back instead."""
        lightest = self._places.lightest()
        ready = self._slots.ready
        if self._slots.under_way or not ready or (lightest is not None and lightest.in_flight < self._target):
            return []
        if now < self._fleet.doubts.until:
            # What takes no more may carry little.
            return []
        self.outgrown, self.outgrown_at = ready, self._places.load
        # Without what draining ones carry: they were enough for that.
        used = self._slots.in_state(SlotState.READY)
        load = sum(self._target if slot.exclusive else slot.in_flight for slot in used)
        step = load // self._target + 1 - ready
        step = min(max(1, min(step, ready)), self._fleet.max_size - self._slots.connections)
        restored = self._restore(step, now)
        for _ in range(min(step - len(restored), self._may_open(now, self._fleet.max_size))):
            self._fleet.dial(now)
        return restored

    def _may_open(self, now: float, bound: int) -> int:
        """How many connections may be dialled now, if there may be `bound` of them."""
        return int(min(bound - self._slots.connections, self._addresses.attempts(now)))

    def _restore(self, wanted: int, now: float) -> list[Slot]:
        """Takes back up to `wanted` connections that drain only because there were too many."""
        restored: list[Slot] = []
        for slot in self._slots.in_state(SlotState.DRAINING) if self._slots.draining else ():
            if len(restored) >= wanted or self._slots.connections >= self._fleet.max_size:
                break
            is_spare = slot.reason is CloseReason.SHRINK and slot.endpoint == self._fleet.endpoint and not slot.kept
            if is_spare and slot.been_up and not (slot.down or slot.blocked or self._addresses.is_gone(slot)):
                self._fleet.take_back(slot, now)
                restored.append(slot)
        return restored
