"""Which connections rank behind others, because calls on them failed of late: a sick server gets less, not more.

A server that fails its calls at once always carries least. Without more, a pool would send it most of the traffic. So
each call that fails as calls do on a sick server handicaps its connection: for `avoid_after_failure` seconds after the
last of such failures it ranks as if it carried ten more calls for each of them. The pickers do that. Where the target
has several addresses, all connections to the same address share the handicap, also those that are opened later.

Invariant: the handicap decides on which connection an ask is granted, never whether it is. Nothing is ejected: while
all connections are sick, or all others are full, it changes nothing. So it needs no threshold and no trial.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from .._values.events import Avoided
from .._values.slot_states import SlotState
from .addresses import Addresses
from .counters import Counters
from .effects import Notify, Outbox
from .places import Places
from .slot import Slot


class Handicaps:
    """The handicaps of one pool's connections."""

    def __init__(
        self,
        places: Places,
        addresses: Addresses,
        outbox: Outbox,
        counters: Counters,
        *,
        avoid_for: float | None,
        name: str,
        alarm_at: Callable[[float], None],
    ) -> None:
        """Handicaps nothing yet.

        Args:
            places: Ranks the connections.
            addresses: Where they lead: the handicap is of all that lead to the same server.
            outbox: For events.
            counters: Those of the pool.
            avoid_for: How long a handicap lasts, in seconds; `None` for no handicaps.
            name: The pool's.
            alarm_at: Brings the pool's next deadline forward.
        """
        self._places = places
        self._addresses = addresses
        self._outbox = outbox
        self._counters = counters
        self._avoid_for = avoid_for
        self._name = name
        self._alarm_at = alarm_at

    def failed(self, slot: Slot, code: enum.Enum, now: float) -> None:
        """A call on the slot has failed as calls do on a sick server."""
        self._counters.failures += 1
        slot.failures += 1
        self.add(slot, code, now)

    def add(self, slot: Slot, code: enum.Enum | None, now: float) -> None:
        """Handicaps the slot, or handicaps it more.

        Args:
            slot: The slot.
            code: The status of the call that failed; `None` if the server refused a stream at light load.
            now: The moment.
        """
        if self._avoid_for is None or slot.state is not SlotState.READY:
            return
        for other in self._addresses.of_same_server(slot):
            if not other.recent_failures:
                self._outbox.append(Notify(Avoided(pool=self._name, channel=other.id, code=code)))
            other.avoided_until = now + self._avoid_for
            self._rank(other, other.recent_failures + 1)
            self._alarm_at(other.avoided_until)

    def enter(self, slot: Slot) -> None:
        """A connection comes into service, with the handicap that others to its server have."""
        if self._addresses.several:
            for other in self._places.slots:
                if other.address == slot.address and other.recent_failures > slot.recent_failures:
                    slot.recent_failures, slot.avoided_until = other.recent_failures, other.avoided_until
                    self._alarm_at(slot.avoided_until)
        self._places.enter(slot)

    def end(self, slot: Slot, now: float) -> None:
        """Ends the slot's handicap if nothing has failed for long enough."""
        if slot.avoided_until <= now:
            slot.avoided_until = math.inf
            self._rank(slot, 0)

    def _rank(self, slot: Slot, failures: int) -> None:
        slot.recent_failures = failures
        self._places.rank(slot)
