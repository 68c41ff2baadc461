"""A model of the machine's surroundings, in which the invariants are checked after every step.

A `World` plays the driver and all of its callers. It reports events to the machine, carries out the effects, and keeps
records of its own: the grants not yet released, the waiters and their arrival, the connections dialled and not closed.
The invariants compare the machine with these records, and the machine's counts with the model's own.

The model is used by Hypothesis (`test_model.py`) and by a random walk (`walk.py`) that is fast enough to run over many
mutants (`test_mutants.py`). It therefore takes the machine's classes as an argument.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TypeVar

from grpcpool._machine.places import Holding
from grpcpool._machine.slot import Slot
from machine.carrying_out import Driver
from machine.counts import asking, connections, in_state, moment, ranks
from machine.invariants import bound, most_waiters
from machine.settings import Sick

T = TypeVar("T")


class World(Driver):
    """A machine, its driver and its callers. Every step ends with a check of all invariants."""

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
        before, grows_at = ranks(self), self.machine.places.growth_load
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
        needed = self.machine.outage.which_are_needed(self.now)
        pause = all(slot.been_up and slot.pauses and needed(slot) for slot in lost)
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

    def note_refusal(self, index: int) -> None:
        """The server refuses a call on one of the grants held, and the grant is kept."""
        if held := self._some([held for held in self.held if held.slot in self.slots], index):
            self.broken = True
            self.counts["refused_streams"] += 1
            slot = held.slot
            sheds, limit = self._sheds(slot, self.now), slot.limit
            self._step(self.recorder.effects(self.machine.note_refusal, slot, 1, self.now, self.now))
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
        lost, needed = in_state(self, "lost"), self.machine.outage.which_are_needed(self.now)
        assert all(needed(slot) for slot in lost), "connect() does not reconnect what is lost"
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
        hung = not lookups.under_way or number < lookups._attempts.begun
        known = self.machine.fleet.addresses.names
        waited = [slot for slot in self.slots if slot.awaits_address]
        if names:
            self._step(self.recorder.effects(self.machine.addresses_found, names, number, self.now))
            is_older = number < self.found_by
            assert not is_older or self.machine.fleet.addresses.names == known, "what an older look-up found is used"
            self.found_by = max(number, self.found_by)
        else:
            failures = self.machine.counters.open_failures
            self._step(self.recorder.effects(self.machine.look_up_failed, OSError("no such name"), number, self.now))
            fails = self.discovered or self.machine.counters.open_failures == failures
            assert fails, "a dial failed that gRPC could look up"
        # Else the answer was for a target that is not used any more.
        again = lookups.next_at() <= self.now
        wait = [slot for slot in self.slots if slot.awaits_address]
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
            either = either or self.machine.fleet.peak_watch_ends_at <= self.now
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

    def extend_opening(self, index: int) -> None:
        """One of the dials turns out not to be late: the driver stood still."""
        if slot := self._some(self.dials, index):
            self.broken = True
            self._step(self.recorder.effects(self.machine.extend_opening, slot, self.now))
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
            if for_good := index % 3 == 0:
                self.broken_slots.add(slot)
            event = functools.partial(self.machine.blocked, for_good=for_good)
            self._step(self.recorder.effects(event, slot, self.now))

    def call_failed(self, index: int) -> None:
        """A call shows that one of the connections is down."""
        self.lost(index, ConnectionError("reset"))

    def server_gone(self, index: int) -> None:
        """Under load, a call shows a loss, and a check another one; all who called there call again."""
        for _ in range(self.max_size):
            self.request(1, patience=math.inf)
            for _ in self.dials.copy():
                self.opened(0)
        for lose in (self.call_failed, self.lost):
            if slot := self._some(in_state(self, "ready"), index):
                lose([slot for slot in self.slots if slot.state != "opening"].index(slot))
        for _ in range(self.config.max_streams):
            self.request(1, patience=math.inf)
        if index % 2:
            # The next steps come while it is in doubt what is up.
            return
        self.tick()
        self.tick_in_time()

    def recovered(self, index: int) -> None:
        """One of the connections is up again."""
        down = [slot for slot in self.slots if slot.state == "lost"]
        if slot := self._some(down or [slot for slot in self.slots if slot.state != "opening"], index):
            if slot in self.broken_slots:
                assert self.recorder.effects(self.machine.recovered, slot, self.now) == []
                return
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
