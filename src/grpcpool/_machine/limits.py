"""How many calls each connection may carry: `max_streams`, or fewer if the server refuses some.

HTTP/2 servers have a limit of streams, which a client does not see. A refusal means one of two things. Either there are
more calls than the server's limit: then the connection's limit is lowered to what is left, and grows again step by
step. Or the server, or a proxy, sheds load, and refuses some calls however few there are: a lower limit would not help,
and would call for connections that would not help either.

A call that is alone on its connection shows which it is: no limit refuses it. Its refusal lowers nothing. After several
of these, some time apart, the limits that were lowered before are those of a server that sheds load: they are taken
back, and not lowered for a while. As long as that is not clear, no connection is opened for the calls that wait. That
the server carries other calls beside one that it refused shows nothing: refusals may arrive long after the limit was
lowered, as many at once as there were calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.events import RefusedStream
from .._values.slot_states import SlotState
from .counters import Counters
from .effects import Notify, Outbox
from .places import Places
from .slot import Slot
from .slot_table import SlotTable

# A server that refuses streams is near its limit, or busy cleaning up. A limit that it has lowered comes back within
# some seconds, a twentieth of `max_streams` at a time; each step that goes too far costs one call a retry.
_GROWS_AFTER = 0.5

# Calls that a connection carries at light load.
_HANDFUL = 8

# So many refusals of lone calls, so far apart, show that the server sheds load: one may be because it still cleans up
# what was cancelled. That is believed for a while.
_LONE_REFUSALS = 3
_APART = 0.02
_SHEDS_FOR = 30.0

# So long after a refusal at light load it is not clear what it means.
_UNCLEAR_FOR = 0.1


class Limits:
    """The limits of the connections of one pool."""

    def __init__(
        self,
        slots: SlotTable,
        places: Places,
        outbox: Outbox,
        counters: Counters,
        *,
        max_streams: int,
        name: str,
        alarm_at: Callable[[float], None],
    ) -> None:
        """For the connections of one pool; `alarm_at` brings its next deadline forward."""
        self._slots = slots
        self._places = places
        self._outbox = outbox
        self._counters = counters
        self._max_streams = max_streams
        self._name = name
        self._alarm_at = alarm_at
        # Until when the server is believed to shed load.
        self.sheds_until = -math.inf
        # Until when it is not clear whether there is a limit.
        self.unclear_until = -math.inf

    def refused(self, slot: Slot, began: float, now: float, *, leaving: int = 0, calls: int = 1) -> bool:
        """The server refused a call on the slot. Lowers its limit to what it carries, less `leaving`, if that is why.

        Under load, a connection that carries much as well takes no more for now: the server's limit is probably the
        same there, and its refusals are on their way.

        Args:
            slot: The slot.
            began: When the call began.
            now: The moment.
            leaving: Streams that are released next.
            calls: Those that run on the place of the refused call: more than one may on that of a lease.

        Returns:
            Whether the server sheds load: the limit stays.
        """
        self._counters.refused_streams += 1
        carried = slot.in_flight
        # From its beginning: none that ended meanwhile may have been the one too many.
        alone = carried <= 1 and calls <= 1 and slot.used_at <= began
        if alone:
            self._note_lone_refusal(slot, now)
        sheds = alone or now < self.sheds_until
        if not sheds:
            self._limit(slot, max(carried - leaving, calls - 1), now)
            if carried > _HANDFUL:
                self._limit_peers(slot, now)
        if alone or slot.limit <= _HANDFUL < self._max_streams:
            self.unclear_until = now + _UNCLEAR_FOR
            self._alarm_at(self.unclear_until)
        self._outbox.append(Notify(RefusedStream(pool=self._name, channel=slot.id, limit=slot.limit)))
        return sheds

    def _note_lone_refusal(self, slot: Slot, now: float) -> None:
        """After several, some time apart, the server sheds load."""
        since = now - slot.refused_alone_at
        if since < _APART:
            return
        slot.refused_alone = slot.refused_alone + 1 if since < _SHEDS_FOR else 1
        slot.refused_alone_at = now
        if slot.refused_alone >= _LONE_REFUSALS:
            self.sheds_until = now + _SHEDS_FOR
            self._lift_all()

    def _lift_all(self) -> None:
        """The server sheds load: its connections may carry what they may without a limit of its own."""
        for slot in self._slots.in_state(SlotState.READY):
            self._raise_to(slot, self._max_streams, math.inf)

    def limit_as_others(self, slot: Slot, now: float) -> None:
        """A new connection may carry what others may, if the server has refused calls on all of these."""
        others = [other.limit for other in self._slots.in_state(SlotState.READY) if other is not slot]
        if others and max(others) < self._max_streams:
            # An unreachable channel may carry calls by the time it is up.
            self._limit(slot, max(1, slot.in_flight, *others), now)

    def _limit_peers(self, slot: Slot, now: float) -> None:
        for other in self._slots.in_state(SlotState.READY):
            if other is not slot and not other.exclusive and 2 * other.in_flight >= slot.in_flight:
                self._limit(other, other.in_flight, now)
                self._places.refresh(other)

    def _limit(self, slot: Slot, most: int, now: float) -> None:
        slot.limit = min(slot.limit, most)
        if slot.limit < self._max_streams:
            slot.limit_grows_at = now + _GROWS_AFTER
            self._alarm_at(slot.limit_grows_at)

    def grow(self, slot: Slot, now: float) -> bool:
        """Raises a lowered limit by one step if that is due; returns whether it did."""
        if slot.limit_grows_at > now:
            return False
        most = self._max_streams
        limit = min(most, slot.limit + max(1, most // 20))
        self._raise_to(slot, limit, now + _GROWS_AFTER if limit < most else math.inf)
        return True

    def _raise_to(self, slot: Slot, limit: int, grows_at: float) -> None:
        slot.limit, slot.limit_grows_at = limit, grows_at
        if slot.state is SlotState.READY:
            self._places.refresh(slot)
