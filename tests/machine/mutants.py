"""Hand-made mutants, each a mistake that is easily made, and a loader for a copy of the machine with one of them.

A mutant replaces a text that occurs exactly once in a module. If a change of the module removes the text, write the
mutant again; do not drop it. Each stands for a mistake that the model must catch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import grpcpool
from machine.model import Code

SOURCE = Path(grpcpool.__file__).parent


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake in one module.

    Attributes:
        name: What goes wrong.
        module: The module.
        old: The right text.
        new: The wrong text.
        why: Why the mistake is easily made.
    """

    name: str
    module: str
    old: str
    new: str
    why: str


def patched(mutant: Mutant) -> str:
    """The mutant's module as text.

    Raises:
        ValueError: The right text does not occur exactly once.
    """
    text = (SOURCE / "_machine" / f"{mutant.module}.py").read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the text occurs {text.count(mutant.old)} times in {mutant.module}")
    return text.replace(mutant.old, mutant.new)


@functools.cache
def _compiled(path: Path, text: str) -> types.CodeType:
    """The code of a module. Mutants differ in one module each: the others are compiled once for all of them."""
    return compile(text, path, "exec", dont_inherit=True)


class _Copy(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the machine's modules again, under another package's name, and changes the one that is mutated."""

    def __init__(self, name: str, mutant: Mutant | None) -> None:
        """Finds what is imported from the package of that name."""
        self._name = name
        self._changed = {} if mutant is None else {SOURCE / "_machine" / f"{mutant.module}.py": patched(mutant)}

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """The module, if it is one of the copy."""
        package, *names = fullname.split(".")
        if package != self._name:
            return None
        file = SOURCE.joinpath(*names)
        is_package = file.is_dir()
        origin = str(file / "__init__.py" if is_package else file.with_suffix(".py"))
        return importlib.util.spec_from_loader(fullname, self, origin=origin, is_package=is_package)

    def exec_module(self, module: types.ModuleType) -> None:
        """Runs it. The package itself is empty: nothing but the machine is to be imported."""
        assert module.__spec__ is not None
        assert module.__spec__.origin is not None
        path = Path(module.__spec__.origin)
        if path.parent != SOURCE:
            exec(_compiled(path, self._changed.get(path) or path.read_text(encoding="utf-8")), vars(module))  # noqa: S102 -- our own


@contextlib.contextmanager
def loaded(mutant: Mutant | None) -> Iterator[Code]:
    """Loads a copy of the machine as a package of its own, with the mutation if one is given."""
    name = "copy_of_grpcpool"
    copy = _Copy(name, mutant)
    sys.meta_path.insert(0, copy)
    try:
        machine, openers, queue, config = (
            importlib.import_module(f"{name}.{module}")
            for module in ("_machine.machine", "_machine.openers", "_machine.queue", "_values.config")
        )
        yield Code(
            machine=machine.PoolMachine,
            waiter=queue.Waiter,
            open_waiter=openers.OpenWaiter,
            config=config.PoolConfig,
            mode=config.Mode,
        )
    finally:
        sys.meta_path.remove(copy)
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]


MUTANTS = (
    Mutant(
        "connections to an address that is gone stay",
        "replacing",
        "self._enough(asked) else -math.inf\n",
        "self._enough(asked) else math.inf\n",
        "if others are enough they drain at once, so this is seldom needed",
    ),
    Mutant(
        "an address that cannot be reached is dialled again at once",
        "addresses",
        "            pauses = address.backoff.retry_at > now\n",
        "            pauses = False\n",
        "the pool's own backoff looks as if it did that",
    ),
    Mutant(
        "uneven addresses stay uneven",
        "addresses",
        "leading[emptiest.name] < 2:",
        "leading[emptiest.name] < 3:",
        "a difference of two looks small",
    ),
    Mutant(
        "an address that is new gets no connection",
        "machine",
        "        self.fleet.cover(now)\n",
        "",
        "the pool grows by its load in any case",
    ),
    Mutant(
        "after a look-up that failed, dials fail that gRPC could look up",
        "endpoints",
        "error=error)))\n        if not fleet.lookups.awaited:\n            fleet.direct_held(now)\n",
        "error=error)))\n",
        "there are no addresses",
    ),
    Mutant(
        "after a look-up that failed, dials go on waiting for its answer",
        "machine",
        "            for slot in self.fleet.held():\n                self._fails(slot, error, now)\n",
        "",
        "the next look-up may succeed",
    ),
    Mutant(
        "what only look-ups find is left to gRPC after one that failed",
        "lookups",
        "        self.awaited = self.awaited and self.discovered\n",
        "        self.awaited = False\n",
        "gRPC can look up most names",
    ),
    Mutant(
        "a look-up that failed is under way for ever",
        "lookups",
        "and self.discovered\n        self._over(now + pause)\n",
        "and self.discovered\n",
        "it will be due again anyway",
    ),
    Mutant(
        "a look-up that hangs is waited for",
        "lookups",
        "        return self._hangs_at if self.under_way else self._due_at\n",
        "        return math.inf if self.under_way else self._due_at\n",
        "most look-ups return some time",
    ),
    Mutant(
        "what an older look-up finds is used",
        "lookups",
        "        if number < self._used_from:\n",
        "        if False:\n",
        "it has just been found",
    ),
    Mutant(
        "a refused stream leaves the limit",
        "limits",
        "            self._limit(slot, max(carried - leaving, calls - 1), now)\n",
        "            self._limit(slot, max(carried, calls - 1), now)\n",
        "the load is read before or after the release",
    ),
    Mutant(
        "a lowered limit never grows",
        "limits",
        "            slot.limit_grows_at = now + _GROWS_AFTER\n            self._alarm_at",
        "            self._alarm_at",
        "the time is easily set only where the limit grows",
    ),
    Mutant(
        "a limit that grows serves no waiter",
        "machine",
        "            if self.fleet.limits.grow(slot, now):\n                self.grants.serve(slot, now)\n",
        "            self.fleet.limits.grow(slot, now)\n",
        "it is easily forgotten that a higher limit means new room",
    ),
    Mutant(
        "the first call waits for no attempt",
        "outage",
        " or self._primes or self._awaits_attempt():\n",
        " or self._primes:\n",
        "most calls in an outage are to fail at once",
    ),
    Mutant(
        "calls fail while their connection is checked",
        "outage",
        "        return not any(slot.blocked for slot in lost) and (",
        "        return (",
        "it is not up",
    ),
    Mutant(
        "no attempt is made for the first call",
        "outage",
        "        is_first = self._replacing.want(now)\n",
        "        is_first = not self._replacing.want(now)\n",
        "attempts are made anyway, after a pause",
    ),
    Mutant(
        "a release serves no waiter",
        "pickers",
        "        return slot.overflow or self.queue.length\n",
        "        return slot.overflow\n",
        "the early return of the hot path covers too much",
    ),
    Mutant(
        "a release serves no waiter, with the picker `round_robin`",
        "places",
        "        return slot.overflow or self.queue.length\n",
        "        return slot.overflow\n",
        "the other pickers have a release of their own",
    ),
    Mutant(
        "a discard does not dial for waiters",
        "machine",
        "        self.release(slot, streams, holder, now)\n        self.grants.fill(now)\n",
        "        self.release(slot, streams, holder, now)\n",
        "it is easily forgotten that a discard also makes room for another connection",
    ),
    Mutant(
        "a release out of service is one in service",
        "pickers",
        "        if slot.state is not _READY:\n",
        "        if False:\n",
        "most releases are in service",
    ),
    Mutant(
        "a release after the close is counted",
        "places",
        "        if state is _CLOSED:\n",
        "        if False:\n",
        "a lease that outlives its connection is rare",
    ),
    Mutant(
        "a released slot is not found again",
        "pickers",
        "            if load < self._low:  # noqa: PLR1730 -- as above\n                self._low = load\n",
        "",
        "the lowest bucket is usually kept by others",
    ),
    Mutant(
        "a whole connection weighs as much as one call",
        "pickers",
        "self.load = self.load + self.target\n",
        "self.load = self.load + 1\n",
        "other asks weigh as many streams as they take",
    ),
    Mutant(
        "the fast way passes by the pool's growth",
        "pickers",
        "        if load >= self.growth_load:\n",
        "        if load >= self.growth_load + 1:\n",
        "the next call makes the pool grow",
    ),
    Mutant(
        "a recovery serves no waiter",
        "machine",
        "        self.outbox.append(Notify(Recovered(pool=self.name, channel=slot.id, seconds=now - slot.lost_at)))\n"
        "        self._reconcile(now, slot)\n",
        "        self.outbox.append(Notify(Recovered(pool=self.name, channel=slot.id, seconds=now - slot.lost_at)))\n"
        "        self._reconcile(now)\n",
        "the next release would serve them, if there is one",
    ),
    Mutant(
        "a lost slot is picked",
        "fleet",
        "        self.places.remove(slot)\n        self.slots.move(slot, SlotEvent.LOST)\n",
        "        self.slots.move(slot, SlotEvent.LOST)\n",
        "the state and the picker are updated separately",
    ),
    Mutant(
        "a call is put on a lost slot while another is up",
        "outage",
        "        if self._slots.ready or self._primes or",
        "        if self._primes or",
        "having no room is confused with having nothing up",
    ),
    Mutant(
        "a successor outlives the return of what it was to replace",
        "fleet",
        "if successor is not None and slot.retire_at > now:",
        "if successor is None and slot.retire_at > now:",
        "one connection more does not look wrong",
    ),
    Mutant(
        "a lost connection is never given up",
        "replacing",
        "                at = min(at, slot.given_up_at)\n",
        "                pass\n",
        "gRPC reconnects by itself",
    ),
    Mutant(
        "an unreachable channel is thrown away although calls need it",
        "machine",
        "and self.outage.needs_channel(slot,",
        "and not self.outage.needs_channel(slot,",
        "a failed dial was always thrown away",
    ),
    Mutant(
        "nothing follows what leaves service",
        "fleet",
        "in its place.\n        self.alarm_at(now)\n",
        "in its place.\n",
        "what was not needed before may be needed then",
    ),
    Mutant(
        "nothing follows a loss",
        "fleet",
        "self.slots.move(slot, SlotEvent.LOST)\n        self.alarm_at(now)\n",
        "self.slots.move(slot, SlotEvent.LOST)\n",
        "what was not needed before may be needed then",
    ),
    Mutant(
        "connect() leaves what is lost",
        "machine",
        "        if not self._slots.ready:\n            self.outage.recall(now)\n",
        "",
        "a lost connection counts as one, and is not reconnected unless it is needed",
    ),
    Mutant(
        "overflow stays open",
        "shrinking",
        "while self._slots.connections > self._fleet.max_size and slot.state in",
        "while self._slots.connections > self._fleet.max_size + self._fleet.config.max_overflow and slot.state in",
        "there are two bounds, and this is the wrong one",
    ),
    Mutant(
        "a waiter's deadline is not scheduled",
        "grants",
        "        self._fleet.alarm_at(waiter.deadline)\n        self.fill",
        "        self.fill",
        "an earlier deadline hides the mistake",
    ),
    Mutant(
        "rearming forgets the waiters' deadlines",
        "deadlines",
        "            self._queue.next_deadline(),\n",
        "",
        "the slots' deadlines are computed in another module",
    ),
    Mutant(
        "close forgets the waiters in open()",
        "machine",
        "        self.openers.close(now)\n",
        "",
        "open() has separate waiters",
    ),
    Mutant(
        "close leaves draining slots their later deadline",
        "machine",
        "slot.deadline = min(slot.deadline, self._closes_at)",
        "slot.deadline = max(slot.deadline, self._closes_at)",
        "min and max are confused",
    ),
    Mutant(
        "close gives drain_timeout as grace",
        "machine",
        "self.fleet.retire(slot, CloseReason.POOL_CLOSED, now, deadline=self._closes_at)",
        "self.fleet.retire(slot, CloseReason.POOL_CLOSED, now)",
        "an optional argument is left out",
    ),
    Mutant(
        "a late connection stays open",
        "machine",
        "            self.outbox.append(Close(slot))\n            return\n",
        "            return\n",
        "the slot is already closed, but its new channel is not",
    ),
    Mutant(
        "open() is answered by the first connection",
        "open_queue",
        "            if not awaited and (enough or not opener.patient):\n",
        "            if opener.made or (not awaited and (enough or not opener.patient)):\n",
        "with one connection the result is the same",
    ),
    Mutant(
        "one more may wait",
        "grants",
        "return waiting >= most + ",
        "return waiting > most + ",
        "off by one",
    ),
    Mutant(
        "connections being opened are not counted",
        "slot_table",
        "self.connections = self.opening + self.ready",
        "self.connections = self.ready",
        "it seems natural to count a connection only once it is open",
    ),
    Mutant(
        "a successor counts beside the connection it replaces",
        "slot_table",
        " + self.lost - self.successors",
        " + self.lost",
        "it is easily forgotten that not every opening slot counts",
    ),
    Mutant(
        "a separated successor is still counted as one",
        "slot_table",
        "successor.replaces = replaced.successor = None",
        "replaced.successor = None",
        "with the pointers cleared it looks done",
    ),
    Mutant(
        "last come, first served",
        "queue",
        "next(iter(queue.fail_fast",
        "next(reversed(queue.fail_fast",
        "a dict can be read from either end",
    ),
    Mutant(
        "a waiter stays at its deadline",
        "queue",
        "if self._next_refusal() <= now else None",
        "if self._next_refusal() < now else None",
        "the alarm rings at the deadline, not after it",
    ),
    Mutant(
        "the alarm forgets the end of a pause",
        "queue",
        "        return min(rested, self._next_refusal())\n",
        "        return self._next_refusal()\n",
        "a pausing waiter has a deadline, too",
    ),
    Mutant(
        "a waiter that has paused is not served",
        "grants",
        "        if slot is not None:\n            self.serve(slot, now)\n\n    def wait",
        "\n    def wait",
        "the next release would serve it",
    ),
    Mutant(
        "a leaving waiter's streams are still counted",
        "queue",
        "        self.asked -= line.weight\n",
        "",
        "there are two counters",
    ),
    Mutant(
        "a leaving waiter is still counted",
        "queue",
        "        self.length -= 1\n",
        "",
        "there are two counters, and this is the other",
    ),
    Mutant(
        "a whole lease beside calls",
        "slot",
        "            return self.in_flight == 0 < self._limit\n",
        "            return not self.exclusive\n",
        "being alone is read as being the only whole lease",
    ),
    Mutant(
        "calls beside a whole lease",
        "slot",
        "return not self.exclusive and self.in_flight + streams <= self._limit",
        "return self.in_flight + streams <= self._limit",
        "a whole lease counts as one stream only",
    ),
    Mutant(
        "one stream too many",
        "slot",
        "self.in_flight + streams <= self._limit",
        "self.in_flight + streams <= self._limit + 1",
        "off by one",
    ),
    Mutant(
        "a draining slot is picked",
        "fleet",
        "        self.places.remove(slot)\n        self.slots.move(slot, SlotEvent.RETIRED)\n",
        "        self.slots.move(slot, SlotEvent.RETIRED)\n",
        "the state and the picker are updated separately",
    ),
    Mutant(
        "a restored slot is not picked",
        "fleet",
        "        self._forget_reason(slot)\n        self.handicaps.enter(slot)\n",
        "        self._forget_reason(slot)\n",
        "the state and the picker are updated separately",
    ),
    Mutant(
        "too many slots are restored",
        "fleet",
        "if len(restored) >= wanted or self.slots.connections >= self.max_size:",
        "if len(restored) >= wanted:",
        "a connection that is already open seems to cost nothing",
    ),
    Mutant(
        "calls cut off still count as load",
        "places",
        "        self.load -= self.target if slot.exclusive else slot.in_flight\n        slot.in_flight = 0\n",
        "        slot.in_flight = 0\n",
        "normally a release subtracts it",
    ),
    Mutant(
        "the replaced slot stays in service",
        "fleet",
        "            self.retire(replaced, CloseReason.LOST if given_up else replaced.reason, now)\n",
        "            pass\n",
        "it would be closed at its next deadline, but has none",
    ),
    Mutant(
        "a failed successor stays linked",
        "fleet",
        "        self._forget_reason(self.slots.part(slot))\n        self.slots.move(slot, SlotEvent.OPEN_FAILED)\n",
        "        self.slots.move(slot, SlotEvent.OPEN_FAILED)\n",
        "it is easily forgotten that a failed attempt may have been a successor",
    ),
    Mutant(
        "draining slots are cut off late",
        "fleet",
        "        elif slot.deadline <= now:\n",
        "        elif slot.deadline < now:\n",
        "the alarm rings at the deadline, not after it",
    ),
    Mutant(
        "backoff is ignored",
        "addresses",
        "sum(each.backoff.retry_at <= now and each.name",
        "sum(each.name",
        "making one attempt at a time looks like backoff",
    ),
    Mutant(
        "dialling has no deadline",
        "fleet",
        "        self.alarm_at(min(slot.hangs_at, slot.deadline))\n\n    def dial",
        "\n    def dial",
        "one assumes that every dial ends by itself",
    ),
    Mutant(
        "the circle takes a busy slot for idle",
        "pickers",
        "        if load:\n            self._idle.pop(slot, None)\n",
        "        if load > slot.in_flight:\n            self._idle.pop(slot, None)\n",
        "one assumes that only a slot that is given more can stop being idle",
    ),
    Mutant(
        "a handicap is never forgotten",
        "handicaps",
        "            slot.avoided_until = math.inf\n            self._rank(slot, 0)\n",
        "            slot.avoided_until = math.inf\n",
        "its end and what it changes are kept apart",
    ),
    Mutant(
        "the alarm forgets the end of a handicap",
        "deadlines",
        "    return min(slot.limit_grows_at, slot.avoided_until)\n",
        "    return slot.limit_grows_at\n",
        "there are other deadlines, most of the time",
    ),
    Mutant(
        "a whole lease gets no slot with a handicap",
        "pickers",
        "                return self._empty() if self._avoided else None\n        elif",
        "                return None\n        elif",
        "an empty slot is the first in rank, without handicaps",
    ),
    Mutant(
        "growth sees the handicap",
        "pickers",
        "        return self._lightest_of_all() if self._avoided and lightest.in_flight else lightest\n",
        "        return lightest\n",
        "the first in rank is the lightest, without handicaps",
    ),
    Mutant(
        "a slot comes back without its handicap",
        "places",
        "        self.rank(slot)\n        self.refresh(slot)\n",
        "        if not slot.buckets:\n            self.rank(slot)\n        self.refresh(slot)\n",
        "few slots have a handicap when they come into service",
    ),
    Mutant(
        "a reservation outlives its waiter",
        "machine",
        "        queued = self.queue.remove(waiter)\n        self.grants.review(now)\n",
        "        queued = self.queue.remove(waiter)\n",
        "the next release would end it",
    ),
    Mutant(
        "a reserved slot serves others",
        "grants",
        "self.reservation.waiter_for(slot) if reserved else",
        "self.reservation.waiter_for(slot) if False else",
        "the picker does not pick it",
    ),
    Mutant(
        "nothing is reserved",
        "reservation",
        "            if slot is not None:\n                self.slot, self._waiter = slot, waiter\n",
        "            if False:\n                self.slot, self._waiter = slot, waiter\n",
        "a slot becomes empty by itself, when there is little to do",
    ),
    Mutant(
        "a reservation outlives a whole connection that passes to its waiter",
        "machine",
        "        if slot.exclusive and reserved is None:\n",
        "        if slot.exclusive:\n",
        "the slot is as taken as before",
    ),
    Mutant(
        "nothing is reserved for the first that waits",
        "grants",
        "        behind = self._queue.push(waiter)",
        "        behind = self._queue.push(waiter) or True",
        "most waiters queue behind others",
    ),
    Mutant(
        "open() gives up before the next target is used",
        "open_queue",
        "if slot not in opener.pending or opener.patient:",
        "if slot not in opener.pending:",
        "the target has failed",
    ),
    Mutant(
        "open() counts on lost connections",
        "open_queue",
        "if not enough and self._slots.lost:",
        "if False:",
        "they have been opened",
    ),
    Mutant(
        "the alarm forgets what is idle",
        "deadlines",
        "            self._shrinking.next_end(),\n",
        "",
        "the end of the watch is another deadline",
    ),
    Mutant(
        "what is idle closes wherever it leads",
        "shrinking",
        "        return _least_needed_first(idle, slots)[:spare]\n",
        "        return sorted(idle, key=Slot.counts_as_idle_since)[:spare]\n",
        "what has been idle for longest is needed least",
    ),
    Mutant(
        "a dial that hangs is counted on",
        "slot_table",
        "        elif not kind.succeeds:\n",
        "        if not kind.succeeds:\n",
        "it ends in time",
    ),
)
