"""Which slot serves the next call.

A picker holds the slots that are ready and have room for at least one more stream; the machine tells it of every
change. All picks are O(1) in the number of slots but one: an ask for several streams that the first choice has no
room for looks at each slot.

`LeastLoaded`
    Slots lie in buckets by what they carry; a pick takes a random one of the lowest bucket that is not empty. This
    is join-the-shortest-queue with ties broken at random: of all ways that do not look at the calls themselves, it
    keeps the loads closest (Winston 1977), and no two pools fall into step. The fullest slot is at most one above
    the emptiest while calls only arrive.
`Fill`
    The same buckets; takes from the highest bucket below the target, the last that came in first. Few connections
    are in use and the others fall idle. When all have reached the target it does as `LeastLoaded`.
`RoundRobin`
    Each in turn, in one circle; blind to load but for skipping the full.
"""

from __future__ import annotations

import abc
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from ._config import PickerName
from ._slot import Slot


class Picker(abc.ABC):
    """Holds the slots that are ready and have room."""

    @abc.abstractmethod
    def reload(self, slot: Slot, before: int) -> None:
        """What a ready slot carries, or may carry, has changed; it carried `before`. Takes it in or lets it go."""

    @abc.abstractmethod
    def remove(self, slot: Slot) -> None:
        """Lets go of a slot that leaves service; does nothing if the slot is not here."""

    @abc.abstractmethod
    def pick(self, streams: int | None) -> Slot | None:
        """The slot to serve an ask for `streams` (`None`: all of it, alone), still in here; `None` if none can."""

    @abc.abstractmethod
    def lightest(self) -> Slot | None:
        """A slot that carries least, of those with room."""


class _Buckets(Picker):
    """Slots in buckets by `in_flight`; bit `n` of the mask is set when bucket `n` is not empty."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._buckets: defaultdict[int, list[Slot]] = defaultdict(list)
        self._mask = 0

    def reload(self, slot: Slot, before: int) -> None:
        if slot.position >= 0:
            self._take_out(slot, before)
        load = slot.in_flight
        if load < slot.limit and not slot.exclusive:
            bucket = self._buckets[load]
            slot.position = len(bucket)
            bucket.append(slot)
            self._mask |= 1 << load

    def remove(self, slot: Slot) -> None:
        if slot.position >= 0:
            self._take_out(slot, slot.in_flight)

    def lightest(self) -> Slot | None:
        mask = self._mask
        return self._buckets[(mask & -mask).bit_length() - 1][-1] if mask else None

    def _take_out(self, slot: Slot, load: int) -> None:
        """The last of the bucket fills the gap."""
        bucket = self._buckets[load]
        last = bucket.pop()
        if last is not slot:
            bucket[slot.position] = last
            last.position = slot.position
        elif not bucket:
            self._mask ^= 1 << load
        slot.position = -1

    def _roomy(self, streams: int) -> Slot | None:
        """The lightest slot with room for several streams: limits differ once a server has refused some."""
        slots = (slot for load in sorted(self._buckets) for slot in self._buckets[load])
        return next((slot for slot in slots if slot.has_room(streams)), None)


class LeastLoaded(_Buckets):
    """The slot that carries least; ties are broken at random."""

    def pick(self, streams: int | None) -> Slot | None:
        mask = self._mask
        if not mask:
            return None
        lowest = (mask & -mask).bit_length() - 1
        bucket = self._buckets[lowest]
        slot = bucket[0] if len(bucket) == 1 else bucket[int(self._random() * len(bucket))]
        if streams == 1:
            return slot
        if streams is None:
            return None if lowest else slot
        if slot.in_flight + streams <= slot.limit:
            return slot
        return self._roomy(streams)


class Fill(_Buckets):
    """The fullest slot below the target, so that as few as possible are in use."""

    def __init__(self, random: Callable[[], float], target_streams: int) -> None:
        super().__init__(random)
        self._below_target = (1 << target_streams) - 1

    def pick(self, streams: int | None) -> Slot | None:
        mask = self._mask
        if not mask:
            return None
        if streams is None:
            return self._buckets[0][-1] if mask & 1 else None
        below = mask & self._below_target
        load = (below.bit_length() if below else (mask & -mask).bit_length()) - 1
        slot = self._buckets[load][-1]
        if slot.in_flight + streams <= slot.limit:
            return slot
        return self._roomy(streams)


class RoundRobin(Picker):
    """Each slot in turn."""

    def __init__(self) -> None:
        """Makes an empty circle."""
        self._circle: OrderedDict[Slot, None] = OrderedDict()
        self._idle: OrderedDict[Slot, None] = OrderedDict()

    def reload(self, slot: Slot, before: int) -> None:
        """A slot that was given more has had its turn; one that got rid of some keeps its place in the circle."""
        if slot.in_flight >= slot.limit or slot.exclusive:
            self.remove(slot)
            return
        self._circle[slot] = None
        slot.position = 0
        if slot.in_flight > before:
            self._circle.move_to_end(slot)
        if slot.in_flight:
            self._idle.pop(slot, None)
        else:
            self._idle[slot] = None

    def remove(self, slot: Slot) -> None:
        """Lets go of a slot; does nothing if the slot is not here."""
        slot.position = -1
        self._circle.pop(slot, None)
        self._idle.pop(slot, None)

    def pick(self, streams: int | None) -> Slot | None:
        """The slot whose turn it is, of those with room for the ask."""
        if streams is None:
            return next(iter(self._idle), None)
        return next((slot for slot in self._circle if slot.has_room(streams)), None)

    def lightest(self) -> Slot | None:
        """A slot that carries least, of those with room."""
        return min(self._circle, key=lambda slot: slot.in_flight, default=None)


def make_picker(name: PickerName, *, random: Callable[[], float], target_streams: int) -> Picker:
    """Makes the picker of that name; `random` returns a float from 0 to below 1."""
    match name:
        case "least_loaded":
            return LeastLoaded(random)
        case "fill":
            return Fill(random, target_streams)
        case "round_robin":
            return RoundRobin()
