"""Places: what the slots carry, and which slot serves the next call.

Every place is taken and released here, or in a class that gives the places of one pool an order; nowhere else::

    Places           the rules: `acquire` and `release`                              this file
      RoundRobin     its order is a circle                                           pickers.py
      Rings          its order is rings; `release` once more, without a call         rings.py
        LeastLoaded  `take` and `take_whole` once more, without a call               pickers.py
        Fill                                                                         pickers.py

`take` and `release` are what every call pays for. These and `acquire` each change all that they count in one go, in
which no signal handler can run, together with the holder: the holder of a place and the count of its slot never
disagree. What a signal handler may interrupt is the order, which can be rebuilt.

A place that is released while all waiters ask for the same passes on to the first of them as it is: the slot carries as
much as before. `settle` completes that.

Invariants:
    * The slots carry what was acquired and not released.
    * `load` is the sum of what the slots carry, in streams; a whole connection weighs as much as `target`.
    * The order holds the slots that are ready and have room for at least one more stream.
"""

from __future__ import annotations

import abc
from typing import Final, Protocol

from .._values.config import PoolConfig
from .._values.slot_states import SlotState
from .queue import Waiter, WaitQueue
from .slot import Slot
from .slot_table import SlotTable

NEVER: Final = 1 << 30
"""A load that no slot reaches. Not infinity: to compare that with an integer takes longer than the rest of the line."""

# Looking a member up in its enum takes longer than the rest of the line that needs it on every call.
_READY, _CLOSED = SlotState.READY, SlotState.CLOSED


class Holder(Protocol):
    """What holds a place: a lease, a call, a waiter whose grant is on its way."""

    _slot: Slot | None
    _released: bool


class Holding:
    """A holder and nothing else: for the release of a place whose own holder is gone."""

    __slots__ = ("_released", "_slot")

    def __init__(self, slot: Slot | None = None) -> None:
        """Holds a place on `slot`."""
        self._slot = slot
        self._released = False


class Places(abc.ABC):
    """The places of one pool, in an order: that of a picker, which is a subclass, see `pickers.py`.

    The machine reports every change to it: a slot that comes into service or leaves it, a limit, a handicap.
    """

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue) -> None:
        """For the slots and waiters of one pool."""
        self.target = config.resolved_target_streams
        self.slots = slots
        self.queue = queue
        self.load = 0
        # The highest load since `Fleet` last looked.
        self.peak = 0
        # A grant that brings a slot to this load may call for growth.
        self.growth_load = NEVER
        # The waiter to which the last release has passed its place, until `PoolMachine.settle`.
        self.heir: Waiter | None = None

    # --- taking and releasing -----------------------------------------------------------------------------------

    def take(self, holder: Holder) -> Slot | None:
        """Takes one stream of the best slot for `holder`: what nearly every call begins with. Returns the slot.

        It passes no waiter: a slot has room for an ask only while no waiter asks for the same (invariant 3).

        Returns:
            `None` if no slot has room, or if the pool may have to grow: `PoolMachine.request` decides then.
        """
        return self.acquire(1, holder)

    def take_whole(self, holder: Holder) -> Slot | None:
        """The same for all of a slot, which then carries nothing else."""
        return self.acquire(None, holder)

    def acquire(self, streams: int | None, holder: Holder, slot: Slot | None = None) -> Slot | None:
        """The same as `take`, for an ask for `streams` (`None`: all of a slot); on `slot` if one is given."""
        if slot is None:
            slot = self.pick(streams)
            if slot is None or (streams is not None and slot.in_flight + streams >= self.growth_load):
                return None
        if slot.state is _READY:
            try:
                self.reload(slot, slot.takes_up_to if streams is None else slot.in_flight + streams)
            except BaseException:
                self.rebuild()
                raise
        if streams is None:
            slot.exclusive = True
            slot.in_flight = 1
        else:
            slot.in_flight += streams
        slot.calls += 1
        load = self.load = self.load + (streams or self.target)
        if load > self.peak:  # noqa: PLR1730 -- calling max() would cost more than the rest of the line
            self.peak = load
        holder._slot = slot
        holder._released = False
        return slot

    def release(self, slot: Slot, streams: int | None, now: float, holder: Holder) -> int:
        """Releases the holder's place; returns a number other than 0 if `PoolMachine.settle` has to follow.

        If this is interrupted, the place has been released or is still held, and `PoolMachine.repair` has to follow.
        """
        state = slot.state
        heir = self.queue.heir(streams) if state is _READY and slot.in_flight <= slot.takes_up_to else None
        # From here to the change of the load there is no call: a signal handler could run there.
        holder._released = True
        if heir is not None:
            # What the slot carries, and its order among others, stay as they are.
            heir._slot = slot
            heir._released = False
            slot.calls += 1
            slot.used_at = now
            self.heir = heir
            return 1
        if state is _CLOSED:
            # It was closed with calls on it, and has forgotten them.
            return 0
        if streams is None:
            slot.exclusive = False
            load = slot.in_flight = 0
            self.load -= self.target
        else:
            load = slot.in_flight = slot.in_flight - streams
            self.load -= streams
        slot.used_at = now
        if state is not _READY:
            return 1
        self.reload(slot, load)
        return slot.overflow or self.queue.length

    def release_unanswered(self, slot: Slot, streams: int | None, now: float, holder: Holder) -> int:
        """The same, where no call has been answered, as at the end of a lease: a silent slot stays silent."""
        is_silent = slot.silent_at == slot.used_at
        settles = self.release(slot, streams, now, holder)
        if is_silent:
            slot.silent_at = slot.used_at
        return settles

    def drop(self, slot: Slot) -> None:
        """A slot is closed: what it carries is cancelled and forgotten."""
        self.load -= self.target if slot.exclusive else slot.in_flight
        slot.in_flight = 0
        slot.exclusive = False

    def recount(self) -> None:
        """Derives the load and the order from what the slots carry. The place that has just passed on stays taken."""
        self.heir = None
        self.load = sum(self.target if slot.exclusive else slot.in_flight for slot in self.slots)
        self.rebuild()

    # --- the order ----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def pick(self, streams: int | None) -> Slot | None:
        """The slot to serve an ask for `streams` (`None`: all of it, alone), still in here; `None` if none can."""

    @abc.abstractmethod
    def lightest(self) -> Slot | None:
        """A slot that carries least, of those with room."""

    @abc.abstractmethod
    def __contains__(self, slot: Slot) -> bool:
        """Whether the slot is in here: ready, with room."""

    @abc.abstractmethod
    def reload(self, slot: Slot, load: int) -> None:
        """A ready slot is to carry `load`, or carries it by now; an exclusive one all that it may.

        Adds it, puts it elsewhere, or removes it.
        """

    def refresh(self, slot: Slot) -> None:
        """What a ready slot may carry has changed. Adds or removes it."""
        self.reload(slot, slot.takes_up_to if slot.exclusive else slot.in_flight)

    @abc.abstractmethod
    def rank(self, slot: Slot) -> None:
        """The handicap of a slot (`Slot.recent_failures`) has changed, or may have since it was in service last."""

    def enter(self, slot: Slot) -> None:
        """Adds a slot that comes into service, if it has room."""
        self.rank(slot)
        self.refresh(slot)

    @abc.abstractmethod
    def remove(self, slot: Slot) -> None:
        """Removes a slot that leaves service; does nothing if the slot is not here."""

    def rebuild(self) -> None:
        """Puts each ready slot where it belongs by what it carries, after an update was interrupted."""
        for slot in self.slots.in_state(_READY):
            self.refresh(slot)
