"""A model of the machine's surroundings, and the invariants that must hold after every step.

A `World` plays the driver and all of its callers. It reports events to the machine, carries out the effects, and keeps
records of its own: the grants not yet released, the waiters and their arrival, the connections dialled and not closed.
The invariants compare the machine with these records, and the machine's counts with the model's own.

How the model reads the invariants where the design leaves them open:

*   No. 3 also holds for connections: nothing waits for a connection that could be dialled and is not. When nothing is
    up, a fail-fast call does not wait: it is put on a lost slot with room, or refused.
*   No. 4: equal requests ask for the same streams. A lost slot serves fail-fast waiters only, in their order.
*   No. 6 counts connections, open or opening. A draining slot does not count, and neither does a successor being
    opened, because the slot it is to replace still counts. Slots above `max_size` are marked as overflow. A `resize`
    downwards retires at once whatever is above the new `max_size`, overflow included, so the bound holds throughout.
*   No. 11: ready slots with a handicap have room like others (no. 3, and the lightest of the picker); of those with
    room, the fast way picks by rank.
*   No. 12: the oldest waiter, if it asks for much, has a slot reserved, unless something is being dialled or none
    would do; then the next waiter, and so on. A reserved slot takes nothing new.
*   No. 13 holds after each tick of a pool in use, unless something is being opened, lost, or cannot be reached.
*   A dial that hangs, for a second or more at the last tick, does not count as one under way.
*   No. 8: after `tick(now)`, `next_deadline()` is `now` or later, and it is never after the deadline of a waiter.

The model is used by Hypothesis (`test_model.py`) and by a random walk (`walk`) that is fast enough to run over many
mutants (`test_mutants.py`). It therefore takes the machine's classes as an argument.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import itertools
import math
import operator
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from grpcpool import Mode, PoolConfig
from grpcpool._machine.addresses import Leads
from grpcpool._machine.effects import Close, Effect, Grant, Look, Notify, Open, Refuse, Started, Watch
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import NEVER, Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from grpcpool._values.config import PickerName
from machine.drive import Recorder

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def dice(seed: int) -> random.Random:
    """A random source that repeats for the same seed."""
    return random.Random(seed)  # noqa: S311 -- tests have no secrets


EPOCH = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """The classes of one copy of the machine: the real one, or a mutant.

    States, reasons and the like compare equal as strings, so values from any copy work; classes do not.
    """

    machine: type[PoolMachine]
    waiter: type[Waiter]
    open_waiter: type[OpenWaiter]
    config: type[PoolConfig]
    mode: type[Mode]


REAL = Code(machine=PoolMachine, waiter=Waiter, open_waiter=OpenWaiter, config=PoolConfig, mode=Mode)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of a configuration that the machine uses."""

    min_size: int = 1
    max_size: int = 3
    target_streams: int = 2
    max_streams: int = 4
    loose: bool = False
    max_overflow: int = 1
    max_waiters: int | None = None
    idle_timeout: float | None = 4.0
    max_age: float | None = None
    connect_timeout: float = 2.0
    drain_timeout: float = 3.0
    picker: PickerName = "least_loaded"
    avoid_after_failure: float | None = 3.0
    unresponsive_after: float | None = 4.0
    # Of how many addresses look-ups may find some; 0 if where connections lead is not known.
    addresses: int = 0
    either_family: bool = False
    # Whether gRPC watches health: then a connection to a server that is not healthy is lost.
    health: bool = False
    endpoints: int = 1

    def config(self, code: Code) -> PoolConfig:
        """The same settings as a `PoolConfig` of that copy."""
        return code.config(
            min_size=self.min_size,
            max_size=self.max_size,
            target_streams=self.target_streams,
            max_streams=self.max_streams,
            mode=code.mode.LOOSE if self.loose else code.mode.STRICT,
            max_overflow=self.max_overflow if self.loose else 0,
            max_waiters=self.max_waiters,
            idle_timeout=self.idle_timeout,
            max_age=self.max_age,
            connect_timeout=self.connect_timeout,
            drain_timeout=self.drain_timeout,
            picker=self.picker,
            avoid_after_failure=self.avoid_after_failure,
            unresponsive_after=self.unresponsive_after,
            health_service="" if self.health else None,
        )


class Sick(enum.Enum):
    """Stands for the status of a failed call."""

    SICK = 1


@dataclasses.dataclass(eq=False, slots=True)
class Held:
    """A grant that has not been released."""

    slot: Slot
    streams: int | None


# So many look-ups may hang at once.
_MOST_LOOKS = 40


class World:
    """A machine, its driver and its callers. Every step ends with a check of all invariants."""

    def __init__(self, settings: Settings, *, seed: int, code: Code = REAL) -> None:
        """Starts with an unused pool; `seed` seeds the machine's randomness."""
        self.code = code
        self.config = settings.config(code)
        self.possible = [
            f"10.0.0.{i}:1" if i % 2 or not settings.either_family else f"[::{i}]:1" for i in range(settings.addresses)
        ]
        looks = bool(self.possible)
        leads = Leads(looks=looks, every=5.0 if looks else None, either_family=settings.either_family, seed=seed)
        leads = leads._replace(endpoints=settings.endpoints if looks else 1)
        # Whether only look-ups find addresses.
        self.discovered = looks and seed % 2 == 0 and leads.endpoints == 1 and not settings.either_family
        leads = leads._replace(discovered=self.discovered)
        self.machine = code.machine(self.config, name="pool", random=dice(seed).random, leads=leads)
        # The look-ups that have not returned, by number: when each began, and for which target.
        self.looks: dict[int, tuple[float, int]] = {}
        # The latest that has found addresses.
        self.found_by = 0
        # Whether a dial may have failed in this step.
        self.failing = False
        self.recorder = Recorder(self.machine)
        self.now = 1000.0
        self.min_size = settings.min_size
        self.max_size = settings.max_size
        self.held: list[Held] = []
        self.waiting: dict[Waiter, None] = {}
        # Those of them that do not ask for their place yet.
        self.paused: set[Waiter] = set()
        # Waiters in open(), each with the slots that it waits for.
        self.openers: dict[OpenWaiter, list[Slot]] = {}
        self.asked: list[Waiter | OpenWaiter] = []
        self.answers: collections.Counter[Waiter | OpenWaiter] = collections.Counter()
        self.gave_up: set[Waiter | OpenWaiter] = set()
        # Dialled and not closed, according to the effects; then the dials whose outcome has not been reported.
        self.slots: dict[Slot, None] = {}
        self.dials: list[Slot] = []
        self.drains: dict[Slot, float] = {}
        # The slot that is reserved, for which waiter, and what was granted in this step.
        self.kept: Slot | None = None
        self.kept_for: Waiter | None = None
        self.granted: list[tuple[Slot, Waiter]] = []
        # What has been closed in this step because it was idle.
        self.idled: list[Slot] = []
        # Known to be down; released to be closed. A grant must use neither while a better slot is ready.
        self.down: set[Slot] = set()
        self.unwanted: set[Slot] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        self.close_deadline = math.inf
        self.closing = False
        self.ticked = False
        # When something was last asked for while nothing was up; what is dialled for the first such request.
        self.asked_in_outage_at = -math.inf
        self.attempt: Any = None
        # What has been looked up while the invariants are checked, which change nothing.
        self.found: dict[Any, Any] | None = None
        # What is still to be carried out in this step.
        self.to_come: Sequence[Effect] = ()
        # Set while a step runs. A failed step leaves it set, and later checks of such a world mean nothing.
        self.broken = False

    # --- callers ------------------------------------------------------------------------------------------------

    def request(
        self,
        streams: int | None,
        *,
        patience: float,
        fail_fast: bool = False,
        fast: bool = True,
        pause: float = 0.0,
    ) -> None:
        """A caller makes a request; like a driver, it tries the fast path first, unless it is to `pause`."""
        self.broken = True
        before, grows_at = _ranks(self), self.machine.places.growth_load
        slot = self.recorder.acquire(streams) if fast and not pause else None
        if slot is not None:
            assert not slot.reserved, f"no. 12: granted on {slot}, which is reserved"
            assert streams != 1 or before[slot] == min(before.values()), f"no. 11: {slot} was not the first in rank"
            assert not [waiter for waiter in asking(self) if waiter.streams == streams], "no. 4: overtook a waiter"
            assert streams is None or slot.in_flight < grows_at, "the machine was not asked whether the pool grows"
            self._check_usable(slot)
            self._hold(slot, streams)
            self._step([])
            return
        full = len(self.waiting) >= most_waiters(self)
        tries = not pause and self._tries_for_first_call()
        # There is no channel on which the call could fail, and the factory makes some. Dials have to pause.
        strands = fail_fast and not pause and not self.machine.fleet.slots.connections
        strands = strands and self.machine.outage.makes_channels and self.now < self.machine.fleet.addresses.retry_at
        waiter = self.code.waiter(
            streams,
            since=self.now,
            deadline=self.now + patience,
            fail_fast=fail_fast,
            not_before=self.now + pause if pause else -math.inf,
        )
        self.asked.append(waiter)
        self.waiting[waiter] = None
        if pause and not self.closing:
            self.paused.add(waiter)
        effects = self.recorder.effects(self.machine.request, waiter, self.now)
        if tries:
            (self.attempt,) = [slot for slot in self.machine.fleet.slots if slot.state == "opening" and slot.replaces]
            assert not any(type(effect).__name__ == "Grant" for effect in effects), "the attempt is not waited for"
        assert not strands or sum(type(effect).__name__ == "Open" for effect in effects) <= 1, (
            "several dials for a call"
        )
        self._step(effects, at_will=tries or strands)
        assert waiter in self.waiting or self.answers[waiter] == 1, "no. 5: neither queued nor answered"
        assert patience > 0 or pause or waiter not in self.waiting, "a waiter without patience was queued"
        assert not full or pause or waiter not in self.waiting, (
            f"{len(self.waiting)} wait, at most {most_waiters(self)} allowed"
        )

    def _tries_for_first_call(self) -> bool:
        """Whether a request is the first of late during an outage: an attempt to connect is made for it."""
        lost = in_state(self, "lost")
        if self.closing or not lost or in_state(self, "ready"):
            return False
        asked_at, self.asked_in_outage_at = self.asked_in_outage_at, self.now
        needed = self.machine.outage.is_needed
        pause = all(slot.been_up and slot.pauses and needed(slot, self.now) for slot in lost)
        return pause and self.now >= asked_at + 10 and not in_state(self, "opening")

    def release(self, index: int) -> None:
        """A caller releases one of the grants held."""
        if held := self._some(self.held, index):
            self.broken = True
            self.held.remove(held)
            alive = held.slot in self.slots
            effects = self.recorder.release(held.slot, held.streams, self.now)
            assert alive or not effects, "the release of a closed slot has effects"
            self._step(effects)

    def discard(self, index: int) -> None:
        """A caller releases one of the grants held and asks to close its connection."""
        if held := self._some(self.held, index):
            self.broken = True
            self.held.remove(held)
            self.unwanted.add(held.slot)
            alive = held.slot in self.slots
            effects = self.recorder.effects(self.machine.discard, held.slot, held.streams, Holding(held.slot), self.now)
            assert alive or not effects, "the discard of a closed slot has effects"
            self._step(effects)
            assert held.slot.state in ("draining", "closed"), "a discarded slot is in service"

    def unfit(self, index: int) -> None:
        """One of the grants held turns out to be on a connection that is down."""
        if held := self._some([held for held in self.held if held.slot in self.slots], index):
            self.broken = True
            self.held.remove(held)
            self.counts["acquired"] -= 1
            self.down |= {held.slot} if held.slot.state == "ready" else set()
            holder = Holding(held.slot)
            self._step(self.recorder.effects(self.machine.unfit, held.slot, held.streams, holder, None, self.now))

    def refused_stream(self, index: int, began: float | None = None) -> None:
        """The server refuses the call on one of the single-stream grants, which began then."""
        began = self.now if began is None else began
        if held := self._some([held for held in self.held if held.streams == 1 and held.slot in self.slots], index):
            self.broken = True
            self.held.remove(held)
            self.counts["refused_streams"] += 1
            slot, others = held.slot, held.slot.in_flight - 1
            sheds, limit = self._sheds(slot, began), slot.limit
            self._step(self.recorder.effects(self.machine.refused_stream, slot, Holding(slot), began, self.now))
            self._check_limit(slot, limit if sheds else others, sheds=sheds)

    def crowded(self, index: int) -> None:
        """The server refuses a call on one of the grants held, and the grant is kept."""
        if held := self._some([held for held in self.held if held.slot in self.slots], index):
            self.broken = True
            self.counts["refused_streams"] += 1
            slot = held.slot
            sheds, limit = self._sheds(slot, self.now), slot.limit
            self._step(self.recorder.effects(self.machine.crowded, slot, 1, self.now, self.now))
            self._check_limit(slot, limit if sheds else slot.in_flight, sheds=sheds)

    def _sheds(self, slot: Slot, began: float) -> bool:
        """Whether a refusal of this moment cannot be due to a limit of streams."""
        alone = slot.in_flight <= 1 and slot.used_at <= began
        return alone or self.now < self.machine.fleet.limits.sheds_until

    def _check_limit(self, slot: Slot, limit: int, *, sheds: bool) -> None:
        if slot in self.slots:
            assert slot.limit >= limit if sheds else slot.limit <= limit, f"the limit is {slot.limit}, not {limit}"

    def failed(self, index: int) -> None:
        """A call on one of the grants held fails as calls do on a sick server, and is over."""
        if held := self._some([held for held in self.held if held.slot in self.slots], index):
            self.broken = True
            self.counts["failures"] += 1
            self._step(self.recorder.effects(self.machine.failed, held.slot, Sick.SICK, self.now))
            avoided = self.config.avoid_after_failure is not None and held.slot.state == "ready"
            assert not avoided or held.slot.avoided_until > self.now, "no. 11: a sick slot has no handicap"
            self.release(self.held.index(held))

    def all_failed(self, index: int) -> None:
        """All calls fail as on sick servers, one after the other; then a whole connection is asked for."""
        while any(held.slot in self.slots for held in self.held):
            self.failed(index)
        self.request(None, patience=0.0)

    def unanswered(self, index: int) -> None:
        """A call on one of the single-stream grants runs into its deadline."""
        if held := self._some([held for held in self.held if held.streams == 1 and held.slot in self.slots], index):
            self.broken = True
            self.held.remove(held)
            slot = held.slot
            self._step(self.recorder.effects(self.machine.unanswered, slot, Holding(slot), self.now - 0.1, self.now))

    def cancel(self, index: int) -> None:
        """A waiter gives up; it may already have been answered."""
        asked = [*self.waiting, *self.openers, *self.asked[-2:]]
        if waiter := self._some(asked, index):
            self.broken = True
            waited = waiter in self.waiting or waiter in self.openers
            said, effects = self.recorder.cancel(waiter, self.now)
            assert said == waited, "cancel is wrong about whether the waiter was still queued"
            assert said or not effects, "cancelling an answered waiter has effects"
            if said:
                self._leave(waiter)
                self.gave_up.add(waiter)
            self._step(effects)

    def open(self, *, patience: float) -> None:
        """A caller calls `open()`."""
        self.broken = True
        waiter = self.code.open_waiter(since=self.now, deadline=self.now + patience)
        self.asked.append(waiter)
        self.openers[waiter] = []
        self._step(self.recorder.effects(self.machine.open, waiter, self.now), at_will=True)
        if waiter in self.openers:
            if len(in_state(self, "ready", "lost")) < self.min_size:
                self.openers[waiter] = [slot for slot in in_state(self, "opening") if slot.replaces is None]
            lost = len(in_state(self, "ready")) < self.min_size and in_state(self, "lost")
            assert self.openers[waiter] or lost, "waits in open() for no slot"

    def connect(self) -> None:
        """A caller wants a connection, but no place on it."""
        self.broken = True
        self._step(self.recorder.effects(self.machine.connect, self.now))
        due = self.now >= self.machine.fleet.addresses.retry_at
        assert self.slots or self.closing or not due, "connect() did not dial"
        if self.closing or in_state(self, "ready"):
            return
        lost, needed = in_state(self, "lost"), self.machine.outage.is_needed
        assert all(needed(slot, self.now) for slot in lost), "connect() does not reconnect what is lost"
        under_way = [slot for slot in in_state(self, "opening") if not slot.hangs]
        full = connections(self) >= bound(self)
        assert lost or under_way or full or self.possible or not due, "connect() did not dial beside what hangs"

    def resize(self, min_size: int, max_size: int) -> None:
        """The bounds change."""
        self.broken = True
        if not self.closing:
            self.min_size, self.max_size = min_size, max_size
        self._step(self.recorder.effects(self.machine.resize, min_size, max_size, self.now))

    def refresh(self) -> None:
        """`refresh()` is called."""
        self.broken = True
        self._step(self.recorder.effects(self.machine.refresh, self.now))

    def close(self, grace: float) -> None:
        """The pool is closed, perhaps for the second time."""
        self.broken = True
        self.closing = True
        self.close_deadline = min(self.close_deadline, self.now + grace)
        self._step(self.recorder.effects(self.machine.close, self.now + grace, self.now), ticked=True)
        assert not self.waiting, "no. 9: a waiter in a closed pool"
        assert not self.openers, "no. 9: a waiter in open() of a closed pool"

    # --- addresses ----------------------------------------------------------------------------------------------

    def looked_up(self, names: Sequence[str], which: int = 0) -> None:
        """A look-up finds these addresses, or fails if there are none: the last (0), or an earlier one that hangs."""
        if not self.looks:
            return
        self.broken = True
        number = sorted(self.looks)[-1 - which % len(self.looks)]
        del self.looks[number]
        lookups = self.machine.fleet.lookups
        hung = not lookups.under_way or number < lookups._begun
        known = self.machine.fleet.addresses.names
        waited = [slot for slot in self.slots if slot.held]
        if names:
            self._step(self.recorder.effects(self.machine.addresses, names, number, self.now))
            is_older = number < self.found_by
            assert not is_older or self.machine.fleet.addresses.names == known, "what an older look-up found is used"
            self.found_by = max(number, self.found_by)
        else:
            failures = self.machine.counters.open_failures
            self._step(self.recorder.effects(self.machine.look_failed, OSError("no such name"), number, self.now))
            fails = self.discovered or self.machine.counters.open_failures == failures
            assert fails, "a dial failed that gRPC could look up"
        # Else the answer was for a target that is not used any more.
        again = lookups.next_at() <= self.now
        wait = [slot for slot in self.slots if slot.held]
        assert self.closing or hung or again or not [slot for slot in wait if slot in waited], (
            "a dial still waits for addresses"
        )
        # One that was begun now waits for the next look-up.
        assert not wait or self.closing or lookups.next_at() < math.inf, "a dial waits for addresses for ever"

    # --- connections --------------------------------------------------------------------------------------------

    def opened(self, index: int) -> None:
        """One of the dials is ready; the pool may have given it up already."""
        if slot := self._some(self.dials, index):
            self.broken = True
            self.dials.remove(slot)
            alive = slot in self.slots
            self.counts["opened"] += slot.state in ("opening", "lost") and not slot.been_up
            self.down.discard(slot)
            effects = self.recorder.effects(self.machine.opened, slot, object(), self.now)
            assert alive or (len(effects) == 1 and self._closes(effects, slot)), "a late connection is not closed"
            self._step(effects)

    def open_failed(self, index: int) -> None:
        """One of the dials fails; the pool may have given it up already."""
        if slot := self._some(self.dials, index):
            self.broken = True
            self.dials.remove(slot)
            alive = slot.state == "opening"
            effects = self.recorder.effects(self.machine.open_failed, slot, ConnectionError("no"), self.now)
            assert bool(effects) == alive, "a failed dial has no effects, or a late failure has some"
            self._step(effects)

    def unreachable(self, index: int) -> None:
        """The channel of one of the dials does not connect; it may be kept for calls."""
        if slot := self._some(self.dials, index):
            self.broken = True
            self.dials.remove(slot)
            stranded = (
                [waiter for waiter in self.waiting if waiter.fail_fast]
                and not in_state(self, "ready")
                and all(other.exclusive or other.blocked for other in in_state(self, "lost"))
                and all(
                    other is slot or other.beside or other.opened_at + 1 <= self.now
                    for other in in_state(self, "opening")
                )
                and slot.replaces is None
                and self.machine.fleet.addresses.is_last_hope(slot)
            )
            if self.config.health_service is not None:
                addresses = self.machine.fleet.addresses
                better = slot.overflow or addresses.is_of_race(slot) or addresses.is_gone(slot)
                awaited = any(slot in opener.pending for opener in self.openers)
                stranded = slot.replaces is None and not (better or awaited)
            stranded = stranded and not slot.probes
            # One above `max_size` is kept only if a call is put on it at once; none is while another address is tried.
            either = slot.overflow
            # Or it is one too many at the end of a watch.
            either = either or self.machine.fleet.watch_ends_at <= self.now
            # Or it is to be replaced, and nothing asks for it now.
            either = either or slot.retire_at <= self.now
            alive, endpoint = slot.state == "opening", self.machine.fleet.endpoint
            effects = self.recorder.effects(self.machine.unreachable, slot, object(), ConnectionError("no"), self.now)
            # Or its target is left in this very step.
            either = either or self.machine.fleet.endpoint != endpoint
            kept = slot.state != "closed"
            assert not alive or either or kept == bool(stranded), "an unreachable channel was kept without need"
            used = slot.in_flight or not (alive and kept and slot.overflow)
            assert used, "a channel above max_size was kept for no call"
            self._step(effects)

    def not_late(self, index: int) -> None:
        """One of the dials turns out not to be late: the driver stood still."""
        if slot := self._some(self.dials, index):
            self.broken = True
            self._step(self.recorder.effects(self.machine.not_late, slot, self.now))
            most = slot.opened_at + self.config.connect_timeout + 1.0
            assert slot.state != "opening" or slot.deadline <= max(most, self.now + 1.0), "an opening has no end"

    def lost(self, index: int, error: Exception | None = None) -> None:
        """One of the connections goes down; a call has shown it if there is an `error`."""
        if slot := self._some([slot for slot in self.slots if slot.state != "opening"], index):
            self.broken = True
            was_ready = slot.state == "ready"
            self.down |= {slot} if was_ready else set()
            effects = self.recorder.effects(self.machine.lost, slot, error, self.now)
            watched = [effect for effect in effects if type(effect).__name__ == "Watch"]
            assert len(watched) == was_ready, "a lost connection must be watched, no other"
            self._step(effects)

    def blocked(self, index: int) -> None:
        """A signal handler has raised in gRPC on one of the connections."""
        if slot := self._some([slot for slot in self.slots if slot.state != "opening"], index):
            self.broken = True
            self.down |= {slot} if slot.state == "ready" else set()
            event = functools.partial(self.machine.blocked, for_good=index % 3 == 0)
            self._step(self.recorder.effects(event, slot, self.now))

    def call_failed(self, index: int) -> None:
        """A call shows that one of the connections is down."""
        self.lost(index, ConnectionError("reset"))

    def recovered(self, index: int) -> None:
        """One of the connections is up again."""
        down = [slot for slot in self.slots if slot.state == "lost"]
        if slot := self._some(down or [slot for slot in self.slots if slot.state != "opening"], index):
            self.broken = True
            self.down.discard(slot)
            self.counts["opened"] += slot.state == "lost" and not slot.been_up
            self._step(self.recorder.effects(self.machine.recovered, slot, self.now))

    # --- time ---------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Time passes without a tick, so what was due may be late. By then gRPC could not reconnect what was lost."""
        self.now += seconds
        for slot in in_state(self, "lost"):
            slot.pauses = True

    def tick(self) -> None:
        """The machine is ticked, early or late."""
        self.broken = True
        expected = {waiter for waiter in self.waiting if waiter.deadline <= self.now}
        for waiter in [waiter for waiter in self.waiting if waiter in self.paused and waiter.not_before <= self.now]:
            # From now on it asks, as the last of all.
            self.paused.remove(waiter)
            del self.waiting[waiter]
            self.waiting[waiter] = None
        self._step(self.recorder.effects(self.machine.tick, self.now), ticked=True)
        assert not expected & self.waiting.keys(), "an expired waiter still waits"

    def tick_in_time(self) -> None:
        """Time passes until the next deadline, and the machine is ticked at exactly that time."""
        deadline = self.machine.next_deadline()
        if deadline < math.inf:
            self.now = max(self.now, deadline)
            self.tick()

    # --- the end ------------------------------------------------------------------------------------------------

    def finish(self, *, grace: float = 2.0, rest_first: bool = True) -> None:
        """Ends every call and closes the pool; then nothing is open and every waiter has been answered."""
        if rest_first:
            self._rest()
        self.close(grace)
        for _ in range(100):
            if self.machine.next_deadline() == math.inf:
                break
            self.tick_in_time()
        assert self.machine.next_deadline() == math.inf, "no. 9: a closed pool still wants ticks"
        assert not self.slots, f"no. 9: still open after close: {list(self.slots)}"
        self._rest()
        self.request(1, patience=1.0)
        assert not self.waiting, "no. 5: still waiting after close"
        for waiter in self.asked:
            count = self.answers[waiter]
            assert count == (waiter not in self.gave_up), f"no. 5: answered {count} times"
        stats = self.machine.stats(moment, self.now)
        assert (stats.size, stats.in_flight, stats.waiting) == (0, 0, 0), "at rest something is in flight"
        assert self.machine.places.load == 0, "at rest the load is not 0"

    def _rest(self) -> None:
        for number in range(1000):
            if self.held:
                self.release(len(self.held) // 2)
            elif self.dials:
                (self.opened if number % 2 else self.open_failed)(0)
        assert not self.held, "the pool does not come to rest"

    # --- the driver ---------------------------------------------------------------------------------------------

    def _step(self, effects: Sequence[Effect], *, ticked: bool = False, at_will: bool = False) -> None:
        """Carries out the effects and checks every invariant."""
        after_close = self.closing
        backoff = self.machine.fleet.addresses
        dialled = sum(
            type(effect).__name__ == "Open" and getattr(effect, "slot", None) not in self.slots for effect in effects
        )
        # Of several addresses, one may have been tried after the other.
        at_will = at_will or bool(self.possible)
        assert dialled <= 1 or at_will or not backoff.failures, "several attempts while failing"
        assert dialled == 0 or at_will or self.now >= backoff.retry_at, "dialled before the backoff has ended"
        self.failing = any(
            type(effect).__name__ == "Close" or type(getattr(effect, "event", None)).__name__ == "OpenFailed"
            for effect in effects
        )
        for number, effect in enumerate(effects, 1):
            name = type(effect).__name__
            self.to_come = effects[number:]
            assert not after_close or name in ("Close", "Refuse", "Notify"), f"no. 9: {name} after close"
            getattr(self, f"_do_{name.lower()}")(effect)
        # These are dialled when the addresses are known.
        self.slots |= {slot: None for slot in self.machine.fleet.slots if slot.held}
        self.ticked = ticked
        passed = [waiter for slot, waiter in self.granted if slot is self.kept and waiter is not self.kept_for]
        in_service = self.kept is not None and self.kept.state == "ready"
        assert not (passed and in_service and self.kept_for in self.waiting), (
            f"no. 12: {self.kept} was kept for another"
        )
        self.kept, self.kept_for = (reservation := self.machine.grants.reservation).slot, reservation._waiter
        self.granted.clear()
        if self.idled:
            self._check_idled()
        self.found = {}
        for invariant in INVARIANTS:
            invariant(self)
        self.found = None
        self.broken = False

    def _check_idled(self) -> None:
        """What was idle has been closed where most lead: no idle one that stays leads where more do than there."""
        ready = in_state(self, "ready")
        leading = collections.Counter(slot.address for slot in ready)
        stays = [slot for slot in ready if not slot.in_flight and slot.successor is None]
        fullest = max([leading[slot.address] for slot in stays], default=0)
        emptiest = min(leading[slot.address] for slot in self.idled)
        # One that leaves had as many beside it as any that stays.
        assert fullest <= emptiest + 1, f"no. 13: idle connections have closed unevenly: {leading}"
        self.idled.clear()

    def _do_open(self, effect: Open) -> None:
        assert effect.slot not in self.dials, "dialled twice"
        assert effect.slot.address in (None, *self.possible), "dialled to an address that was not found"
        assert effect.slot.address or not self.discovered, "dialled to an unknown address"
        address = self.machine.fleet.addresses._used.get(effect.slot.address)
        pauses = address is not None and address.backoff.retry_at > self.now
        others = self.machine.fleet.addresses.retry_at <= self.now and not self.failing
        assert not pauses or not others, f"dialled to {effect.slot.address}, which pauses"
        effect.slot.channel = object()
        self.slots[effect.slot] = None
        self.dials.append(effect.slot)

    def _do_look(self, effect: Look) -> None:
        fleet, timeout = self.machine.fleet, self.config.connect_timeout
        for number, (began_at, endpoint) in self.looks.items():
            # If the target was left meanwhile, the answer is of no use, also when the target is used again.
            left = endpoint != fleet.endpoint or number < fleet.lookups._used_from
            assert left or self.now >= began_at + timeout, "two look-ups at once"
        assert len(self.looks) < _MOST_LOOKS, "too many look-ups hang"
        # The machine may have come to another target since it asked: then the answer is of no use, and it asks again.
        stale = effect.number < fleet.lookups._used_from
        self.looks[effect.number] = self.now, -1 if stale else fleet.endpoint

    def _do_close(self, effect: Close) -> None:
        slot = effect.slot
        if slot not in self.slots:
            return
        del self.slots[slot]
        drained_at = self.drains.pop(slot, math.inf)
        if any(held.slot is slot for held in self.held):
            due = min(drained_at + self.config.drain_timeout, self.close_deadline)
            assert self.now >= due, f"cut off at {self.now}, before {due}"

    def _do_grant(self, effect: Grant) -> None:
        waiter, slot = effect.waiter, effect.slot
        self._answer(waiter)
        self.granted.append((slot, waiter))
        assert waiter not in self.paused, "served while it pauses"
        ahead = [other for other in list(self.waiting)[: list(self.waiting).index(waiter)] if other not in self.paused]
        del self.waiting[waiter]
        equal = [other for other in ahead if other.streams == waiter.streams]
        if slot.state == "lost":
            assert waiter.fail_fast, "a wait-for-ready waiter was put on a lost slot"
            assert not slot.blocked, "put on a slot that is blocked"
            assert not in_state(self, "ready"), "put on a lost slot while another is up"
            equal = [other for other in equal if other.fail_fast]
        elif not (waiter.fail_fast and slot in self.down and self._drains_next(slot)):
            self._check_usable(slot)
        assert not equal, "no. 4: overtook an earlier equal request"
        self._hold(slot, waiter.streams)

    def _do_refuse(self, effect: Refuse) -> None:
        waiter = effect.waiter
        self._answer(waiter)
        reason = effect.refusal.name
        assert reason != "TIMEOUT" or waiter.deadline <= self.now, "timed out before its deadline"
        assert reason != "OPEN_FAILED" or waiter in self.openers or getattr(waiter, "fail_fast", False), (
            "refused a patient waiter"
        )
        checked = [slot for slot in in_state(self, "lost") if slot.blocked]
        assert reason != "OPEN_FAILED" or waiter in self.openers or not checked, "refused while a check may end well"
        if reason == "OPEN_FAILED" and waiter in self.openers and self.machine.fleet.has_spare:
            assert waiter.deadline <= self.now, "open() failed before the next target had its chance"
        self.counts["timeouts"] += reason == "TIMEOUT" and waiter in self.waiting
        self.counts["rejected"] += reason == "EXHAUSTED"
        self._leave(waiter)

    def _leave(self, waiter: Waiter | OpenWaiter) -> None:
        if isinstance(waiter, self.code.open_waiter):
            self.openers.pop(waiter, None)
        elif isinstance(waiter, self.code.waiter):
            self.waiting.pop(waiter, None)

    def _do_started(self, effect: Started) -> None:
        self._answer(effect.waiter)
        awaited = self.openers.pop(effect.waiter)
        pending = [slot for slot in awaited if slot.state == "opening"]
        # One that was ready may have been closed in the same step.
        enough = len(in_state(self, "ready", "closed")) >= self.min_size
        others = enough and all(slot.hangs for slot in pending)
        assert others or not pending, "open() answered too early"
        assert enough or not in_state(self, "lost"), "open() answered, and a connection is down"

    def _do_watch(self, effect: Watch) -> None:
        assert effect.slot.state != "ready", "watches a ready slot"

    def _do_notify(self, effect: Notify) -> None:
        event: Any = effect.event
        name = type(event).__name__
        if name == "Draining":
            slot = next(slot for slot in self.slots if slot.id == event.channel)
            self.drains[slot] = self.now
        elif name == "Closed":
            self.counts[f"closed {event.reason}"] += next(s for s in self.slots if s.id == event.channel).been_up
            assert event.reason != "age" or self.config.max_age is not None, "closed for an age that is allowed"
            self.idled += [slot for slot in self.slots if slot.id == event.channel and event.reason == "idle"]
        self.counts["open_failures"] += name == "OpenFailed"
        self.counts["losses"] += name == "Lost"

    def _answer(self, waiter: Waiter | OpenWaiter) -> None:
        self.answers[waiter] += 1
        assert waiter in self.waiting or waiter in self.openers, "no. 5: answered twice, or never requested"

    def _drains_next(self, slot: Slot) -> bool:
        """Whether the slot begins to drain in what is left of this step.

        What has been granted may make it superfluous, and so may what else is due, such as another target.
        """
        events: list[Any] = [getattr(effect, "event", None) for effect in self.to_come]
        return slot.id in [event.channel for event in events if type(event).__name__ == "Draining"]

    def _check_usable(self, slot: Slot) -> None:
        assert slot.state == "ready" or self._drains_next(slot), f"granted on {slot}"
        assert slot not in self.down, f"granted on {slot}, which is down"
        assert slot not in self.unwanted, f"granted on {slot}, which was discarded"

    def _hold(self, slot: Slot, streams: int | None) -> None:
        self.held.append(Held(slot, streams))
        self.counts["acquired"] += 1

    @staticmethod
    def _closes(effects: Sequence[Effect], slot: Slot) -> bool:
        return any(type(effect).__name__ == "Close" and getattr(effect, "slot", None) is slot for effect in effects)

    @staticmethod
    def _some(items: Sequence[T], index: int) -> T | None:
        return items[index % len(items)] if items else None


# --- the model's own counts -------------------------------------------------------------------------------------


def _looked_up_once(look_up: F) -> F:
    """Remembers what the function returns as long as the invariants are checked: many of them need the same."""

    @functools.wraps(look_up)
    def looked_up(world: World) -> Any:
        found = world.found
        if found is None:
            return look_up(world)
        if look_up in found:
            return found[look_up]
        value = found[look_up] = look_up(world)
        return value

    return looked_up  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def moment(at: float) -> dt.datetime:
    """The date of a time on the model's clock."""
    return EPOCH + dt.timedelta(seconds=at)


@_looked_up_once
def _by_state(world: World) -> dict[str, list[Slot]]:
    by_state: dict[str, list[Slot]] = {}
    for slot in world.slots:
        if not slot.probes:
            by_state.setdefault(slot.state, []).append(slot)
    return by_state


def in_state(world: World, *states: str) -> list[Slot]:
    """The slots in one of these states."""
    found = world.found
    if found is None:
        return _in_state(world, states)
    # As what `_looked_up_once` remembers: the invariants ask this most often.
    if states in found:
        slots: list[Slot] = found[states]
        return slots
    slots = found[states] = _in_state(world, states)
    return slots


def _in_state(world: World, states: tuple[str, ...]) -> list[Slot]:
    by_state = _by_state(world)
    if len(states) == 1:
        return by_state.get(states[0], [])
    return [slot for state in states for slot in by_state.get(state, ())]


@_looked_up_once
def asking(world: World) -> list[Waiter]:
    """The waiters that do not pause."""
    return [waiter for waiter in world.waiting if waiter not in world.paused]


@_looked_up_once
def connections(world: World) -> int:
    """The number that `max_size` bounds: see no. 6 above."""
    return sum([slot.replaces is None for slot in in_state(world, "opening", "ready", "lost")])


@_looked_up_once
def _all_carried(world: World) -> dict[Slot, list[int | None]]:
    by_slot: dict[Slot, list[int | None]] = {}
    for held in world.held:
        by_slot.setdefault(held.slot, []).append(held.streams)
    return by_slot


def carried(world: World, slot: Slot) -> Sequence[int | None]:
    """The requests that were granted on the slot and not released."""
    return _all_carried(world).get(slot, ())


def _ranks(world: World) -> dict[Slot, tuple[int, int]]:
    """How the ready slots with room for one stream rank in the picker's order, except by turn."""
    slots = [slot for slot in in_state(world, "ready") if fits(world, slot, 1) and not slot.reserved]
    return {slot: _rank(world, slot) for slot in slots}


def _rank(world: World, slot: Slot) -> tuple[int, int]:
    if world.config.picker == "least_loaded":
        return slot.in_flight + handicap(world, slot), 0
    if world.config.picker == "fill" and not slot.avoided_for:
        below = slot.in_flight < world.config.resolved_target_streams
        return 0, -slot.in_flight if below else slot.in_flight
    return int(slot.avoided_for > 0), 0


def handicap(world: World, slot: Slot) -> int:
    """As how many calls the slot's failures of late count."""
    worst = -(-world.config.max_streams // 10) * 10
    if world.config.picker == "fill":
        return worst if slot.avoided_for else 0
    return min(10 * slot.avoided_for, worst)


def fits(world: World, slot: Slot, streams: int | None) -> bool:
    """Whether the slot has room for this request beside what it carries."""
    asks = carried(world, slot)
    if streams is None:
        return not asks and slot.limit > 0
    return None not in asks and sum([ask or 0 for ask in asks]) + streams <= slot.limit


def weight(world: World, streams: int | None) -> int:
    """How many of a connection's `target_streams` a waiter for `streams` counts as."""
    target = world.config.resolved_target_streams
    return target if streams is None else min(streams, target)


# --- the invariants ---------------------------------------------------------------------------------------------


def no_1_carried_is_what_was_granted(world: World) -> None:
    """Each slot carries exactly what was granted and not released."""
    for slot in world.slots:
        granted = sum([1 if ask is None else ask for ask in carried(world, slot)])
        assert slot.in_flight == granted, f"no. 1: {slot} should carry {granted}"


def no_2_within_the_limit(world: World) -> None:
    """``0 <= in_flight <= limit`` for each slot."""
    for slot in world.slots:
        assert 0 <= slot.in_flight <= slot.limit, f"no. 2: {slot}"


def no_3_nothing_waits_while_there_is_room(world: World) -> None:
    """No request waits while a ready slot has room for it."""
    ready = in_state(world, "ready")
    others = [slot for slot in ready if not slot.reserved]
    for ask in {waiter.streams for waiter in asking(world)}:
        assert not any([fits(world, slot, ask) for slot in others]), (  # noqa: C419 -- faster
            f"no. 3: waits for {ask} while there is room: {ready}"
        )


def no_3_what_is_needed_is_dialled(world: World) -> None:
    """What waiters and `min_size` need is being dialled, as far as bounds and backoff allow."""
    fleet = world.machine.fleet
    asked = sum(weight(world, waiter.streams) for waiter in asking(world))
    opening = in_state(world, "opening")
    dialled = sum(slot.replaces is None and not slot.hangs for slot in opening)
    hanging = sum(slot.replaces is None and slot.hangs for slot in opening)
    counted = connections(world) - hanging
    missing = max(-(-asked // world.config.resolved_target_streams) - dialled, world.min_size - counted)
    room = bound(world) - connections(world)
    if not fleet.active or min(missing, room) <= 0:
        return
    # In doubt about a limit, nothing is dialled for waiters until a tick at its end.
    in_doubt = fleet.limits.in_doubt_until > -math.inf and missing > world.min_size - counted
    if in_doubt and world.machine.next_deadline() <= max(fleet.limits.in_doubt_until, world.now):
        return
    assert fleet.addresses.failures, f"no. 3: {missing} missing, room for {room}, {world.slots}"
    retry_at = max(fleet.addresses.retry_at, world.now)
    assert opening or world.machine.next_deadline() <= retry_at, "no. 3: no dial is planned"


def no_3_fail_fast_calls_do_not_wait_without_hope(world: World) -> None:
    """When nothing is up, a fail-fast call is on a lost slot with room, or refused, or an attempt is made for it."""
    backoff = world.machine.fleet.addresses
    under_way = [slot for slot in in_state(world, "opening") if not slot.hangs and slot.replaces is None]
    if in_state(world, "ready") or (backoff.several and under_way and not backoff.failures):
        return
    if world.attempt in in_state(world, "opening") and not world.attempt.hangs:
        return
    for ask in {waiter.streams for waiter in asking(world) if waiter.fail_fast}:
        lost = in_state(world, "lost")
        failing = [slot for slot in lost if not slot.blocked]
        assert not any(fits(world, slot, ask) for slot in failing), f"no. 3: fail-fast, waits for {ask} beside {lost}"
        assert lost or in_state(world, "opening") or world.now >= backoff.retry_at, (
            "no. 3: fail-fast, waits for nothing"
        )


def no_4_the_queue_is_in_order(world: World) -> None:
    """The machine's queue holds exactly the model's waiters, in order of arrival."""
    assert list(world.machine.queue) == list(world.waiting), "no. 4: the queue is not in order of arrival"


def no_5_answered_once(world: World) -> None:
    """Each waiter has at most one answer, and a queued waiter has none."""
    assert max(world.answers.values(), default=0) <= 1, "no. 5: answered twice"
    for waiter in world.waiting:
        assert waiter.queued, "no. 5: waits without being queued"
        assert not world.answers[waiter], "no. 5: answered while waiting"


def most_waiters(world: World) -> float:
    """The number of waiters at which the next is rejected."""
    most = world.config.max_waiters
    if most is None:
        return math.inf
    to_come = max(0, world.max_size - len(in_state(world, "ready", "lost")))
    if world.machine.fleet.addresses.failures or most == 0:
        to_come = 0
    return most + to_come * (most + world.config.max_streams)


def bound(world: World) -> int:
    """The most connections that the pool may have."""
    return world.max_size + (world.config.max_overflow if world.config.mode.name == "LOOSE" else 0)


def no_6_connections_are_bounded(world: World) -> None:
    """Connections never exceed `max_size` plus overflow, and an unused one above `max_size` has been closed."""
    n, most = connections(world), bound(world)
    assert n <= most, f"no. 6: {n} connections of {most}: {list(world.slots)}"
    overflow = [slot for slot in in_state(world, "opening", "ready", "lost") if slot.overflow and slot.replaces is None]
    assert n - len(overflow) <= world.max_size, f"no. 6: ordinary slots above max_size: {list(world.slots)}"
    for slot in in_state(world, "ready", "lost"):
        assert slot.in_flight or not slot.overflow, f"no. 6: unused overflow {slot} is still open"


def no_7_closed_is_empty_and_drained_is_gone(world: World) -> None:
    """A closed slot carries nothing; a fully drained slot is gone; the pool holds exactly the slots not closed."""
    assert list(world.machine.fleet.slots) == list(world.slots), "no. 7: dialled and not closed, but not in the pool"
    for slot in world.slots:
        assert slot.state != "closed", f"no. 7: {slot} in the pool"
        assert slot.in_flight or slot.state != "draining" or slot.kept, (
            f"no. 7: {slot} has drained and is still in the pool"
        )
    for held in world.held:
        if held.slot not in world.slots:
            assert held.slot.in_flight == 0, f"no. 7: {held.slot} is closed and carries something"
            assert not held.slot.exclusive, f"no. 7: {held.slot} is closed and carries something"


def everyone_waiting(world: World) -> list[Waiter | OpenWaiter]:
    """All that wait, for a place or in `open()`."""
    return [*world.waiting, *world.openers]


def no_8_the_alarm_is_set(world: World) -> None:
    """The next deadline is not after any waiter's or slot's deadline, and after a tick nothing is overdue."""
    alarm = world.machine.next_deadline()
    deadlines = [waiter.deadline for waiter in everyone_waiting(world)]
    deadlines += [waiter.not_before for waiter in world.waiting if waiter in world.paused]
    deadlines += [slot.deadline for slot in in_state(world, "opening", "draining")]
    deadlines += [slot.hangs_at for slot in in_state(world, "opening")]
    deadlines += [slot.avoided_until for slot in in_state(world, "ready")]
    fleet = world.machine.fleet
    if fleet.active and not in_state(world, "opening"):
        # It is replaced then, unless it is back.
        missed = [slot for slot in in_state(world, "lost") if _is_missed(world, slot) and slot.successor is None]
        deadlines += [max(slot.given_up_at, fleet.addresses.retry_at) for slot in missed]
    assert alarm <= max(min(deadlines, default=math.inf), world.now), "no. 8: the next deadline is too late"
    if world.ticked:
        assert alarm >= world.now, f"no. 8: {alarm} is past after tick({world.now})"
        _no_8_nothing_is_overdue(world, again=alarm <= world.now)


def _no_8_nothing_is_overdue(world: World, *, again: bool) -> None:
    """After a tick nothing is overdue, unless the machine wants to be ticked `again` at once."""
    for waiter in everyone_waiting(world):
        assert waiter.deadline > world.now, "no. 8: a waiter is overdue"
    for slot in in_state(world, "opening", "draining"):
        assert slot.deadline > world.now or again, f"no. 8: {slot} is overdue"
    for slot in in_state(world, "opening"):
        assert slot.hangs or slot.hangs_at > world.now or again, f"no. 8: {slot} hangs, and still counts"
    if not again:
        _no_8_nothing_is_idle_for_too_long(world)
    for slot in in_state(world, "ready", "lost"):
        assert slot.avoided_until > world.now, f"no. 11: the handicap of {slot} does not end"
        assert slot.limit_grows_at > world.now, f"no. 8: the limit of {slot} should have grown"
        lowered = slot.limit < world.config.max_streams
        assert lowered == (slot.limit_grows_at < math.inf), f"no. 8: the limit of {slot} is never raised again"
    due = [slot for slot in in_state(world, "ready", "lost") if _is_due(world, slot) and slot.successor is None]
    calm = world.machine.fleet.active and world.machine.fleet.addresses.failures == 0
    surge = max(1, -(-connections(world) // 4))
    successors = sum(slot.replaces is not None for slot in world.slots)
    assert again or not due or not calm or successors >= surge, f"no. 8: nothing replaces {due}"


def _no_8_nothing_is_idle_for_too_long(world: World) -> None:
    """What `min_size` does not need is not idle for `idle_timeout`, unless another idle one is to close before it."""
    ready = in_state(world, "ready")
    if world.config.idle_timeout is None or len(ready) <= world.min_size:
        return
    leading = collections.Counter(slot.address for slot in ready)
    idle = [slot for slot in ready if not slot.in_flight and slot.successor is None]
    for slot in idle:
        ends_at = max(slot.idle_since(), slot.back_at) + world.config.idle_timeout
        fuller = [other for other in idle if leading[other.address] > leading[slot.address]]
        assert fuller or ends_at > world.now, f"no. 8: {slot} is idle for too long"
        assert fuller or world.machine.next_deadline() <= ends_at, f"no. 8: {slot} will be idle for too long"


def _is_missed(world: World, slot: Slot) -> bool:
    """Whether a lost slot is to come back: there are less than `min_size`, or calls are on it, or wait."""
    return len(in_state(world, "ready")) < world.min_size or slot.in_flight > 0 or bool(asking(world))


def _is_due(world: World, slot: Slot) -> bool:
    """Whether a slot should have a successor: it is too old, or it is down, needed, and not back."""
    needed = slot.state == "lost" and _is_missed(world, slot)
    if world.possible and world.machine.fleet.addresses.is_gone(slot):
        others = [s for s in in_state(world, "ready", "opening") if not world.machine.fleet.addresses.is_gone(s)]
        return sum(not s.hangs for s in others) < max(1, world.machine.fleet.needed(world.machine.queue.asked))
    return slot.retire_at <= world.now or bool(needed and slot.given_up_at <= world.now)


def no_9_closed_is_closed(world: World) -> None:
    """After close nothing is in service, nothing is dialled, and nothing waits."""
    if world.closing:
        late = world.ticked and world.now >= world.close_deadline
        assert not late or not world.slots, "no. 9: a slot is open after the grace"
        assert not in_state(world, "opening", "ready", "lost"), "no. 9: a slot is in service after close"
        assert not world.waiting, "no. 9: waiting after close"


def no_10_exclusive_is_alone(world: World) -> None:
    """An exclusive lease is alone on its slot."""
    for slot in world.slots:
        asks = carried(world, slot)
        assert slot.exclusive == (None in asks), f"no. 10: {slot} carries {asks}"
        assert not slot.exclusive or len(asks) == 1, f"no. 10: {slot} carries {asks}"


def no_11_a_handicap_has_an_end(world: World) -> None:
    """A slot has a handicap exactly until it ends."""
    for slot in world.slots:
        assert (slot.avoided_for > 0) == (slot.avoided_until < math.inf), f"no. 11: the handicap of {slot} has no end"
        assert not slot.avoided_for or world.config.avoid_after_failure is not None, f"no. 11: {slot} is avoided"


def no_12_the_oldest_large_ask_has_a_slot(world: World) -> None:
    """At most one slot is reserved; one is if the oldest waiter asks for much, and a slot would do once it is empty.

    If none would do, the next waiter counts.
    """
    reserved = [slot for slot in world.slots if slot.reserved]
    assert len(reserved) <= 1, f"no. 12: {reserved} are reserved"
    large = [waiter for waiter in asking(world) if waiter.streams != 1]
    assert large or not reserved, f"no. 12: {reserved} is reserved for nothing"
    if reserved or [slot for slot in in_state(world, "opening") if not slot.hangs]:
        return
    for waiter in itertools.takewhile(lambda waiter: waiter.streams != 1, asking(world)):
        enough = [s for s in in_state(world, "ready") if not s.exclusive and s.limit >= (waiter.streams or 1)]
        assert not enough, f"no. 12: nothing is reserved for {waiter.streams} of {enough}"


def no_13_connections_are_even(world: World) -> None:
    """Once all is settled, the numbers of connections to any two addresses differ by at most one, and none is left out.

    An address that lost its connection because that was idle may be left out.
    """
    fleet = world.machine.fleet
    last = max(world.looks, default=0)
    waits = fleet.lookups.under_way and last < fleet.lookups._begun
    assert world.closing or not waits, "no. 13: waits for a look-up that has ended"
    if fleet.lookups.under_way and not world.closing:
        ends_at = max(world.looks[last][0] + world.config.connect_timeout, world.now)
        assert world.machine.next_deadline() <= ends_at, "no. 13: waits for a look-up for ever"
    addresses, slots = fleet.addresses, in_state(world, "opening", "ready", "lost")
    if world.closing or fleet.lookups.under_way or not (fleet.active and fleet.lookups.in_use):
        return
    if not world.ticked and world.machine.next_deadline() <= world.now:
        # A tick is to settle it.
        return
    if fleet.lookups.next_at() <= world.now:
        # It has come into use in this very step.
        return
    if not addresses.names:
        return
    used = addresses._used
    if len({each.is_ipv6 for each in used.values()}) > 1 and addresses._either_family:
        return
    held = collections.Counter(slot.address for slot in slots)
    failing = {name for name, each in used.items() if each.backoff.failures}
    left_out = [name for name, each in used.items() if each.wanted and not held[name] and name not in failing]
    assert not left_out or len(used) < 2 or connections(world) >= world.max_size, f"no. 13: {left_out} are left out"
    if failing or any(slot.state != "ready" or slot.address not in used for slot in slots):
        return
    numbers = [held[name] for name in used]
    assert max(numbers) - min(numbers) <= 1, f"no. 13: {held} of {[*used]}"


def the_counts_are_right(world: World) -> None:
    """The counts of the table, the queue and the load equal the model's own counts."""
    fleet, queue = world.machine.fleet, world.machine.queue
    for state in ("opening", "ready", "lost", "draining"):
        assert getattr(fleet.slots, state) == len(in_state(world, state)), f"miscounted: {state}"
    successors = [slot for slot in world.slots if slot.replaces is not None]
    assert fleet.slots.successors == len(successors), "miscounted: successors"
    assert fleet.slots.connections == connections(world), "miscounted: places"
    counted = {slot: (slot.state == "opening", slot.hangs, slot.replaces is not None) for slot in world.slots}
    assert fleet.slots.probing == sum(slot.probes for slot in world.slots), "miscounted: probing"
    kinds = [kind for slot, kind in counted.items() if not slot.probes]
    assert fleet.slots.hanging == sum(kind[:2] == (True, True) for kind in kinds), "miscounted: hanging"
    assert fleet.slots.under_way == kinds.count((True, False, False)), "miscounted: under way"
    assert fleet.slots.replacing == kinds.count((True, False, True)), "miscounted: replacing"
    in_use = [slot for slot in world.slots if slot.state in ("opening", "ready", "lost")]
    assert fleet.slots.leading == collections.Counter(slot.address for slot in in_use if not slot.successor), (
        "miscounted: leading"
    )
    by_state = {state: in_state(world, state) for state in ("ready", "lost", "opening")}
    by_state["hanging"] = [slot for slot in in_use if slot.state == "opening" and slot.hangs]
    for state, slots in by_state.items():
        leading = collections.Counter(slot.address for slot in slots)
        assert getattr(fleet.slots, f"{state}_to") == leading, f"miscounted: {state}, by address"
    for slot in successors:
        assert slot.state == "opening", f"{slot} is still a successor"
        assert slot.replaces is not None and slot.replaces.successor is slot, f"{slot} replaces nothing"  # noqa: PT018
        assert slot.replaces.state in ("ready", "lost"), f"{slot} replaces {slot.replaces}"
    assert queue.length == len(world.waiting), "miscounted: length"
    assert queue.asked == sum(weight(world, waiter.streams) for waiter in asking(world)), "miscounted: asked"
    target = world.config.resolved_target_streams
    load = sum(target if slot.exclusive else slot.in_flight for slot in world.slots)
    assert world.machine.places.load == load, f"miscounted: the load is {world.machine.places.load}, not {load}"
    assert world.machine.places.peak >= load or fleet.watch_ends_at == math.inf, "the peak is below the load"


def growth_and_shrinking_are_planned(world: World) -> None:
    """The growth threshold is set exactly below `max_size`, and the shrink watch exactly above `min_size`."""
    fleet = world.machine.fleet
    target = world.config.resolved_target_streams
    expected = target if connections(world) < world.max_size else NEVER
    if world.possible and not fleet.lookups.in_use:
        expected = 0
    assert world.machine.places.growth_load == expected or not connections(world), "the growth threshold is wrong"
    watch = world.config.idle_timeout is not None and connections(world) > world.min_size
    assert (fleet.watch_ends_at < math.inf) == watch, "the shrink watch is wrong"


def the_picker_holds_the_slots_with_room(world: World) -> None:
    """The places' order holds exactly the ready slots with room, each filed under its load."""
    places: Any = world.machine.places
    ready = [slot for slot in in_state(world, "ready") if not slot.reserved]
    roomy = {slot for slot in ready if slot.in_flight < slot.limit and not slot.exclusive}
    for slot in world.slots:
        assert (slot in places) == (slot in roomy), f"{slot} is in the order, or is not, and should"
    assert places._avoided == {slot for slot in in_state(world, "ready") if slot.avoided_for}, "avoids others"
    lightest = places.lightest()
    assert (lightest is None) == (not roomy), f"the lightest is {lightest} of {roomy}"
    assert lightest is None or lightest.in_flight == min(slot.in_flight for slot in roomy), "the lightest is wrong"
    if type(places).__name__ == "RoundRobin":
        assert set(places._circle) == roomy, "the circle is not the slots with room"
        assert set(places._idle) == {slot for slot in roomy if not slot.in_flight}, "the idle are not the idle slots"
        return
    found = set()
    for rank, bucket in enumerate(places._buckets):
        before, slot = bucket, bucket.next
        while slot is not bucket:
            assert slot.in_flight + handicap(world, slot) == rank, f"{slot} is in the wrong bucket {rank}"
            assert slot.previous is before, f"{slot} is not behind its neighbour"
            found.add(slot)
            before, slot = slot, slot.next
        assert bucket.previous is before, f"bucket {rank} does not end with its last slot"
    assert found == roomy, "the buckets are not the slots with room"


_COUNTED = ("acquired", "timeouts", "rejected", "opened", "open_failures", "refused_streams", "failures", "losses")
_counted_in = operator.attrgetter(*_COUNTED)


def the_stats_agree(world: World) -> None:
    """The snapshot agrees with the model's records."""
    stats, by_slot = world.machine.stats(moment, world.now), _all_carried(world)
    states: list[str] = [slot.state for slot in world.slots]
    counted = [states.count(state) for state in ("ready", "lost", "opening", "draining")]
    assert [stats.ready, stats.lost, stats.opening, stats.draining] == counted, "stats: wrong counts"
    assert stats.size == len(world.slots) == len(stats.channels), "stats: wrong size"
    asks = [ask for slot, asks in by_slot.items() if slot in world.slots for ask in asks]
    assert stats.in_flight == sum([1 if ask is None else ask for ask in asks])
    ready = in_state(world, "ready")
    assert stats.idle == len([slot for slot in ready if slot not in by_slot]), "stats: wrong idle"
    assert stats.waiting == len(world.waiting), "stats: wrong waiting"
    assert stats.avoided == len([slot for slot in ready if slot.avoided_for > 0]), "stats: wrong avoided"
    assert (stats.min_size, stats.max_size) == (world.min_size, world.max_size), "stats: wrong bounds"
    counts, were = world.counts.get, _counted_in(stats)
    numbers = tuple([counts(name, 0) for name in _COUNTED])
    assert were == numbers, f"stats: {dict(zip(_COUNTED, were, strict=True))} are not {numbers}"
    for reason, count in stats.closed.items():
        assert count == counts(f"closed {reason}", 0), f"stats: closed for {reason}"
    never_up = len([slot for slot in in_state(world, "lost", "draining") if not slot.been_up])
    assert stats.opened - sum(stats.closed.values()) == stats.size - stats.opening - never_up, (
        "stats: opened is not closed plus open"
    )


INVARIANTS: tuple[Callable[[World], None], ...] = (
    no_1_carried_is_what_was_granted,
    no_2_within_the_limit,
    no_3_nothing_waits_while_there_is_room,
    no_3_what_is_needed_is_dialled,
    no_3_fail_fast_calls_do_not_wait_without_hope,
    no_4_the_queue_is_in_order,
    no_5_answered_once,
    no_6_connections_are_bounded,
    no_7_closed_is_empty_and_drained_is_gone,
    no_8_the_alarm_is_set,
    no_9_closed_is_closed,
    no_10_exclusive_is_alone,
    no_11_a_handicap_has_an_end,
    no_12_the_oldest_large_ask_has_a_slot,
    no_13_connections_are_even,
    the_counts_are_right,
    growth_and_shrinking_are_planned,
    the_picker_holds_the_slots_with_room,
    the_stats_agree,
)


# --- the random walk --------------------------------------------------------------------------------------------


def random_settings(rng: random.Random) -> Settings:
    """Settings of a small pool with short timeouts, so that everything happens soon."""
    max_size = rng.randint(1, 4)
    max_streams = rng.randint(1, 4)
    return Settings(
        min_size=rng.randint(0, max_size),
        max_size=max_size,
        target_streams=rng.randint(1, max_streams),
        max_streams=max_streams,
        loose=rng.random() < 0.4,
        max_overflow=rng.randint(0, 2),
        max_waiters=rng.choice([None, None, 1, 2, 4]),
        idle_timeout=rng.choice([None, 2.0, 4.0]),
        max_age=rng.choice([None, None, 5.0]),
        drain_timeout=rng.choice([0.0, 3.0, 100.0]),
        picker=rng.choice(["least_loaded", "fill", "round_robin"]),
        avoid_after_failure=rng.choice([None, 1.0, 3.0, 3.0]),
        unresponsive_after=rng.choice([None, 1.0, 4.0]),
        addresses=rng.choice([0, 0, 1, 2, 3, 5]),
        either_family=rng.random() < 0.3,
        health=rng.random() < 0.15,
        endpoints=rng.choice([1, 1, 1, 2, 3]),
    )


def random_step(world: World, rng: random.Random) -> None:
    """One random step: requests are frequent, events of the whole pool rare."""
    if world.looks and rng.random() < 0.12:
        number = rng.choice([0, 1, *[len(world.possible)] * 3, rng.randint(0, len(world.possible))])
        names = sorted(rng.sample(world.possible, min(number, len(world.possible))))
        world.looked_up(names, rng.randrange(3) if len(world.looks) > 1 else 0)
        return
    index = rng.randrange(64)
    kind = rng.randrange(100)
    if kind < 28:
        asks = [ask for ask in (1, 1, 2, 3) if ask <= world.config.max_streams]
        streams = rng.choice([None, *asks])
        patience = rng.choice([0.0, 1.0, 3.0, math.inf, math.inf])
        pause = rng.choice([0.0, 0.0, 0.0, 0.0, 0.5])
        fail_fast, fast = rng.random() < 0.4, rng.random() < 0.8
        world.request(streams, patience=patience, fail_fast=fail_fast, fast=fast, pause=pause)
    elif kind < 45:
        world.release(index)
    elif kind < 60:
        world.opened(index)
    elif kind < 72:
        random_time_event(world, rng)
    elif kind < 86:
        steps = (world.open_failed, world.lost, world.recovered, world.recovered, world.discard, world.cancel)
        more = (world.unreachable, world.call_failed, world.not_late, world.unfit, world.refused_stream, world.crowded)
        sick = (world.failed, world.failed, world.all_failed, world.unanswered, world.blocked)
        rng.choice([*steps, *more, world.refused_stream, world.refused_stream, *sick])(index)
    elif kind < 99:
        random_pool_event(world, rng)
    elif rng.random() < 0.3:
        world.close(rng.choice([0.0, 2.0]))


def random_time_event(world: World, rng: random.Random) -> None:
    """Ticks at the next deadline, ticks now, or lets time pass without a tick."""
    kind = rng.randrange(3)
    if kind == 0:
        world.tick_in_time()
    elif kind == 1:
        world.tick()
    else:
        world.advance(rng.choice([0.25, 1.0, 5.0]))


def random_pool_event(world: World, rng: random.Random) -> None:
    """One random event of the whole pool, except closing it."""
    kind = rng.randrange(4)
    if kind == 0:
        world.refresh()
    elif kind == 1:
        world.connect()
    elif kind == 2:
        world.open(patience=3.0)
    else:
        max_size = rng.randint(1, 4)
        world.resize(rng.randint(0, max_size), max_size)


def walk(seed: int, steps: int = 100, code: Code = REAL) -> None:
    """Takes random steps through a pool's life, the same steps for the same seed.

    Raises:
        AssertionError: An invariant does not hold, or the machine went wrong in another way.
    """
    rng = dice(seed)
    world = World(random_settings(rng), seed=seed, code=code)
    for _ in range(steps):
        random_step(world, rng)
    world.finish(grace=rng.choice([0.0, 2.0]), rest_first=rng.random() < 0.5)
