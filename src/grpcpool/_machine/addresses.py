"""Where connections lead: they are dealt out over the addresses of a target.

A target may have several addresses: those of its name, those of a list, those that the user's own discovery returns.
Each connection leads to one of them. With as many connections to each server, the least loaded connection is on the
least busy server. A pool that does not know its addresses has exactly one, ``None``.

Choice. A connection is dialled to the address with the fewest. Ties go to the address that ranks first: each has a
rank, which depends on its name and on a seed of the process (rendezvous hashing). So processes with few connections do
not all connect to the same servers, and an address that comes or goes changes nothing about the order of the others.

New. While the pool is in use, an address that was not known before is *wanted*: it gets a connection at once if there
may be another, and keeps one while the pool is in use. Otherwise the address with the most gives one up, if it has two
more. The same evens out what shrinking, or a server that was away, has left uneven.

Gone. Connections to an address that is not among the target's any more drain, see `replacing.py`.

Unreachable. An address whose dials fail backs off on its own, and others get the connections that it would have. When
its pause is over, one dial at a time tries it. An address where a dial hangs, or a connection is lost and none is
ready, comes last.

Families. A name may stand for IPv6 and IPv4 addresses of the same servers. The family that comes first is tried first.
The family of the first connection that succeeds is used; the other is tried again if no address of the first answers.

Invariant, once the last change has settled, while the pool is in use: the numbers of connections to any two reachable
addresses differ by at most one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from .._values.slot_states import SlotState
from .backoff import Backoff
from .slot import Slot
from .slot_table import SlotTable


class Address:
    """One address of the target, such as `10.0.0.7:50051`; the name `None` stands for one that is not known."""

    __slots__ = ("backoff", "is_ipv6", "name", "rank", "wanted")

    def __init__(self, name: str | None, seed: int, random: Callable[[], float]) -> None:
        """Can be dialled at once."""
        self.name = name
        self.is_ipv6 = name is not None and name.startswith("[")
        self.rank = Random(f"{seed} {name}").random()  # noqa: S311 -- no secret
        self.backoff = Backoff(random)
        # Whether it is to have a connection while the pool is in use.
        self.wanted = True


class Addressing(NamedTuple):
    """How the addresses of a pool's target are known.

    Attributes:
        addresses: The target's, if they are known without a look-up.
        looked_up: Whether they are looked up.
        discovered: Whether only look-ups find them: without an answer, gRPC could not find them either.
        every: Seconds between two look-ups; `None` if there is one address for ever, or it is not known.
        either_family: Whether IPv4 and IPv6 addresses stand for the same servers.
        seed: Ranks addresses that have as many connections.
        endpoints: How many targets there are, in an order of preference.
    """

    addresses: Sequence[str] = ()
    looked_up: bool = False
    discovered: bool = False
    every: float | None = None
    either_family: bool = False
    seed: int = 0
    endpoints: int = 1


class Addresses:
    """The addresses of one pool's target, and which of them a connection leads to."""

    def __init__(self, slots: SlotTable, random: Callable[[], float], addressing: Addressing) -> None:
        """For the connections in `slots`; `random` returns a float from 0 to below 1."""
        self._slots = slots
        self._random = random
        self._either_family = addressing.either_family
        self._seed = addressing.seed
        self._listed: dict[str | None, Address] = {}
        # Those of them that are used: all, or those of one family.
        self._used: dict[str | None, Address] = {}
        # Whether the family is decided, and is IPv6.
        self._is_ipv6: bool | None = None
        self._set(addressing.addresses or [None])

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses of the target, as far as they are known."""
        return tuple(name for name in self._listed if name is not None)

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self._used) > 1

    def update(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """The target has these addresses now; returns which are new, and which are gone."""
        before = dict.fromkeys(self.names)
        self._set(dict.fromkeys(names) or [None])
        return [name for name in self.names if name not in before], [
            name for name in before if name not in self._listed
        ]

    def _set(self, names: Sequence[str | None] | dict[str, None]) -> None:
        known = self._listed
        self._listed = {name: known.get(name) or Address(name, self._seed, self._random) for name in names}
        self._choose_family()

    def _choose_family(self) -> None:
        """Uses the addresses of one family, if it is known which can be reached."""
        if not self._either_family:
            self._used = self._listed
            return
        ready = [slot.address for slot in self._slots.in_state(SlotState.READY) if slot.address in self._listed]
        if not self._of_family() and ready:
            self._is_ipv6 = self._listed[ready[0]].is_ipv6
        self._used = self._of_family()
        if not self._used:
            self._is_ipv6, self._used = None, self._listed

    def _of_family(self) -> dict[str | None, Address]:
        return {name: each for name, each in self._listed.items() if each.is_ipv6 is self._is_ipv6}

    def _is_undecided(self) -> bool:
        return self._either_family and len({each.is_ipv6 for each in self._used.values()}) > 1

    def is_gone(self, slot: Slot) -> bool:
        """Whether the slot's address is not among those that are used. While none is known, none is gone."""
        return slot.address not in self._used and None not in self._used

    def of_same_server(self, slot: Slot) -> list[Slot]:
        """The ready slots whose connections lead to the same server, as far as that is known.

        A single address may be that of a balancer, with many servers behind it.
        """
        if not self.several:
            return [slot]
        return [other for other in self._slots.in_state(SlotState.READY) if other.address == slot.address]

    # --- which can be reached -----------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """Failed dials in a row; 0 if any address has none."""
        return min(each.backoff.failures for each in self._used.values())

    @property
    def retry_at(self) -> float:
        """When a connection may be dialled again."""
        return min(each.backoff.retry_at for each in self._used.values())

    def next_retry(self, now: float) -> float:
        """When the next of several addresses that could not be reached may be dialled again."""
        if not self.several:
            return math.inf
        return min((at for each in self._used.values() if (at := each.backoff.retry_at) > now), default=math.inf)

    def opened(self, slot: Slot) -> None:
        """The slot's connection is up."""
        address = self._used.get(slot.address)
        if address is not None:
            address.backoff.succeeded()
            if self._is_undecided():
                self._is_ipv6 = address.is_ipv6
                self._choose_family()

    def failed(self, slot: Slot, now: float) -> float:
        """The slot's connection could not be made; returns the seconds until the next attempt at its address."""
        address = self._used.get(slot.address)
        if address is None:
            return 0.0
        delay = address.backoff.failed(now)
        if self._is_ipv6 is not None and self.failures:
            # The other family may be reachable by now, unless there are connections.
            self._is_ipv6 = None
            self._choose_family()
        return delay

    def without_trouble(self, now: float) -> set[str | None]:
        """Those of several addresses that may be dialled, and where nothing is known to be wrong."""
        if not self.several:
            return set()
        return {each.name for each in self._reachable(now) if not each.backoff.failures}

    def is_last_hope(self, slot: Slot) -> bool:
        """Whether the dials to all other addresses have failed."""
        return all(each.backoff.failures for name, each in self._used.items() if name != slot.address)

    def is_of_race(self, slot: Slot) -> bool:
        """Whether the slot is dialled to find out which family can be reached, and the other has not failed yet."""
        address = self._used.get(slot.address)
        if address is None or not self._is_undecided():
            return False
        return any(each.is_ipv6 is not address.is_ipv6 and not each.backoff.failures for each in self._used.values())

    # --- which is dialled ---------------------------------------------------------------------------------------

    def choose(self, now: float) -> str | None:
        """The address for the next connection."""
        if not self.several:
            return next(iter(self._used))
        return min(self._used.values(), key=self._order(self._slots.leading, now)).name

    def deal(self, now: float) -> Iterator[str | None]:
        """The addresses for the next connections, without end, if nothing changes but that these are dialled."""
        if not self.several:
            yield from itertools.repeat(next(iter(self._used)))
        leading = self._slots.leading.copy()
        order = self._order(leading, now)
        heap = [(order(each), number, each) for number, each in enumerate(self._used.values())]
        heapq.heapify(heap)
        while True:
            _, number, address = heap[0]
            yield address.name
            leading[address.name] += 1
            heapq.heapreplace(heap, (order(address), number, address))

    def _order(
        self, leading: Counter[str | None], now: float
    ) -> Callable[[Address], tuple[bool, bool, bool, int, float]]:
        """The order in which addresses are dialled, if this many connections are `leading` to each."""
        first = next(iter(self._used.values())).is_ipv6

        def order(address: Address) -> tuple[bool, bool, bool, int, float]:
            pauses = address.backoff.retry_at > now
            other_family = self._either_family and address.is_ipv6 is not first
            has_trouble = address.backoff.failures > 0 or self._is_in_trouble(address)
            return pauses, has_trouble, other_family, leading[address.name], address.rank

        return order

    def attempts(self, now: float) -> float:
        """How many dials may begin now: while an address fails, one at a time to each."""
        if not self.failures:
            return math.inf
        busy = {slot.address for slot in self._slots.in_state(SlotState.OPENING) if not slot.hangs}
        return sum(each.backoff.retry_at <= now and each.name not in busy for each in self._used.values())

    def uncovered(self, now: float) -> list[str | None]:
        """The addresses that are to have a connection, and have none, in the order of their ranks."""
        if not self.several or self._is_undecided():
            return []
        leading = self._slots.leading
        least = [each for each in self._reachable(now) if each.wanted and not leading[each.name]]
        if max(leading.values(), default=0) > 1:
            # Of those that were away; they get a connection that another gives up.
            least = [each for each in least if not each.backoff.failures]
        return [each.name for each in sorted(least, key=lambda each: each.rank)]

    def surplus(self, now: float) -> tuple[Slot, str | None] | None:
        """The slot that is to be replaced by one to another address, and that address; `None` if all are even."""
        if not self.several or self._is_undecided():
            return None
        leading = self._slots.leading
        emptiest = min(self._reachable(now), key=lambda each: (leading[each.name], each.rank), default=None)
        if emptiest is None:
            return None
        fullest = max(self._used.values(), key=lambda each: (leading[each.name], each.rank))
        if leading[fullest.name] - leading[emptiest.name] < 2:  # noqa: PLR2004 -- what it gives up must make a difference
            return None
        able = [slot for slot in self._slots.in_service() if slot.address == fullest.name and slot.successor is None]
        # Not one beyond `max_size`: what replaces it would end as soon as it is up.
        slot = min(able, key=lambda slot: (slot.overflow, slot.exclusive, slot.in_flight), default=None)
        return None if slot is None else (slot, emptiest.name)

    def _reachable(self, now: float) -> list[Address]:
        """Those that may be dialled now, and where nothing is known to be wrong, or one attempt is due."""
        return [
            each
            for each in self._used.values()
            if each.backoff.retry_at <= now
            and not self._is_in_trouble(each)
            and not (each.backoff.failures and each.name in self._slots.opening_to)
        ]

    def _is_in_trouble(self, address: Address) -> bool:
        """Whether a dial hangs there, or a connection is lost and none is ready."""
        name, slots = address.name, self._slots
        return name in slots.hanging_to or (name in slots.lost_to and name not in slots.ready_to)

    # --- which keep a connection --------------------------------------------------------------------------------

    def want_all(self) -> None:
        """The pool comes into use: each address is to have a connection."""
        for each in self._listed.values():
            each.wanted = True

    def not_wanted(self, slot: Slot) -> None:
        """The slot is closed because it was not needed: its address needs no connection of its own."""
        address = self._used.get(slot.address)
        if address is not None and not self._slots.leading[slot.address]:
            address.wanted = False

    def keeps(self) -> int:
        """How many connections are kept so that each wanted address has one."""
        if not self.several:
            return 0
        return sum(each.wanted and not each.backoff.failures for each in self._used.values())

    def unserved(self) -> set[str | None]:
        """Those of several addresses that are wanted, and to which no ready connection leads."""
        if not self.several:
            return set()
        return {name for name, each in self._used.items() if each.wanted and name not in self._slots.ready_to}
