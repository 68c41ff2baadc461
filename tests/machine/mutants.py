"""Hand-made slips, each of a kind that is easily made, and the means to load a copy of the machine that has one.

A mutant replaces a text that occurs exactly once in a module. When the text is gone because the module was changed,
the mutant is to be made anew, not dropped: each stands for something that the model must notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import grpcpool
from machine.model import Code

SOURCE = Path(grpcpool.__file__).parent
# The machine, and the values in which it speaks.
PACKAGES = ("_machine", "_values")


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One slip.

    Attributes:
        name: What goes wrong.
        module: Where.
        old: The right text.
        new: The wrong text.
        why: How one comes to write it.
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


@contextlib.contextmanager
def loaded(mutant: Mutant | None, directory: Path) -> Iterator[Code]:
    """Loads a copy of the machine, with the slip if there is one, as a package of its own in `directory`."""
    name = f"copy_of_grpcpool_{directory.name}"
    package = directory / name
    package.mkdir()
    (package / "__init__.py").touch()
    for part in PACKAGES:
        shutil.copytree(SOURCE / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (package / "_machine" / f"{mutant.module}.py").write_text(patched(mutant), encoding="utf-8")
    sys.path.insert(0, str(directory))
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
        sys.path.remove(str(directory))
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]


MUTANTS = (
    Mutant(
        "a refused stream leaves the limit",
        "fleet",
        "        slot.limit = min(slot.limit, slot.in_flight - leaving)\n",
        "        slot.limit = min(slot.limit, slot.in_flight)\n",
        "the load is read before or after the release",
    ),
    Mutant(
        "a lowered limit never grows",
        "fleet",
        "            slot.limit_grows_at = now + _LIMIT_GROWS_AFTER\n            self.alarm_at",
        "            self.alarm_at",
        "the moment is only set where the limit grows",
    ),
    Mutant(
        "the limit grows and nobody is served",
        "machine",
        "                if self.fleet.grow_limit(slot, now):\n                    self._serve(slot, now)\n",
        "                self.fleet.grow_limit(slot, now)\n",
        "a limit that grows is room that comes free, which is easily forgotten",
    ),
    Mutant(
        "a release serves nobody",
        "places",
        "            return self.queue.length > 0 or slot.overflow\n",
        "            return slot.overflow\n",
        "the quick way out of the hot path is made a little too wide",
    ),
    Mutant(
        "a discard dials for nobody",
        "machine",
        "        self.release(slot, streams, holder, now)\n        self._fill(now)\n",
        "        self.release(slot, streams, holder, now)\n",
        "a discard closes; that it also frees a place is easily forgotten",
    ),
    Mutant(
        "a release after the close is counted",
        "places",
        "        if state is _CLOSED:\n",
        "        if False:\n",
        "a lease that outlives its connection is rare",
    ),
    Mutant(
        "a recovery serves nobody",
        "machine",
        "        self.fleet.backoff.succeeded()\n        self._reconcile(now, slot)\n",
        "        self.fleet.backoff.succeeded()\n        self._reconcile(now)\n",
        "the next release would serve them, were there one",
    ),
    Mutant(
        "a lost slot is picked",
        "machine",
        "        self._picker.remove(slot)\n        self._slots.move(slot, SlotEvent.LOST)\n",
        "        self._slots.move(slot, SlotEvent.LOST)\n",
        "the state and the picker are told apart",
    ),
    Mutant(
        "a call is put on a lost slot while another is up",
        "machine",
        " and waiter.fail_fast and self._slots.ready == 0:\n",
        " and waiter.fail_fast:\n",
        "that nothing has room is taken for nothing being up",
    ),
    Mutant(
        "overflow stays open",
        "machine",
        "slot.overflow = self._slots.connections > self.fleet.max_size\n",
        "slot.overflow = self._slots.connections > self.fleet.max_size + self.config.max_overflow\n",
        "two bounds, and the wrong one",
    ),
    Mutant(
        "who waits is not on the clock",
        "machine",
        "        self.fleet.alarm_at(waiter.deadline)\n        self._fill",
        "        self._fill",
        "any other deadline would do as well, if there is one",
    ),
    Mutant(
        "the clock set anew forgets who waits",
        "machine",
        "        self.fleet.alarm_at(self.queue.next_deadline())\n",
        "",
        "the slots' deadlines are found in another module",
    ),
    Mutant(
        "close forgets who waits in open()",
        "machine",
        "        for opener in tuple(self.openers):\n            self._refuse(opener, Refusal.CLOSED, now)\n"
        "            del self.openers[opener]\n",
        "",
        "open() has waiters of its own",
    ),
    Mutant(
        "close leaves its own deadline to what drains",
        "machine",
        "slot.deadline = min(slot.deadline, self._closes_at)",
        "slot.deadline = max(slot.deadline, self._closes_at)",
        "earliest and latest are confused",
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
        "the slot is closed already; its new channel is not",
    ),
    Mutant(
        "open() is answered by the first connection",
        "machine",
        "            if not opener.pending:\n",
        "            if opener.made or not opener.pending:\n",
        "with one connection it is the same",
    ),
    Mutant(
        "one more may wait",
        "machine",
        "self.queue.length >= self.config.max_waiters:",
        "self.queue.length > self.config.max_waiters:",
        "off by one",
    ),
    Mutant(
        "places do not count what is being opened",
        "slot_table",
        "return count[SlotState.OPENING] + count[SlotState.READY]",
        "return count[SlotState.READY]",
        "a connection is counted when it is there",
    ),
    Mutant(
        "a successor has a place of its own",
        "slot_table",
        " + count[SlotState.LOST] - self.successors",
        " + count[SlotState.LOST]",
        "an opening slot is an opening slot",
    ),
    Mutant(
        "a successor that parts is still counted",
        "slot_table",
        "            self.successors -= 1\n",
        "",
        "the pointers are cleared, so it looks done",
    ),
    Mutant(
        "last come, first served",
        "queue",
        "else next(iter(queue))",
        "else next(reversed(queue))",
        "a dict has two ends",
    ),
    Mutant(
        "a waiter stays past his deadline",
        "queue",
        "if self.next_deadline() <= now else None",
        "if self.next_deadline() < now else None",
        "the alarm rings at the deadline, not after it",
    ),
    Mutant(
        "who leaves is still asked for",
        "queue",
        "        self.asked -= self._weight(waiter)\n",
        "",
        "one of two counters",
    ),
    Mutant(
        "who leaves is still counted",
        "queue",
        "        self.length -= 1\n",
        "",
        "the other of two counters",
    ),
    Mutant(
        "a whole lease beside calls",
        "slot",
        "            return self.in_flight == 0 < self.limit\n",
        "            return not self.exclusive\n",
        "alone is taken for the only whole lease",
    ),
    Mutant(
        "calls beside a whole lease",
        "slot",
        "return not self.exclusive and self.in_flight + streams <= self.limit",
        "return self.in_flight + streams <= self.limit",
        "a whole lease carries but one",
    ),
    Mutant(
        "one stream too many",
        "slot",
        "self.in_flight + streams <= self.limit",
        "self.in_flight + streams <= self.limit + 1",
        "off by one",
    ),
    Mutant(
        "a draining slot is picked",
        "fleet",
        "        self.picker.remove(slot)\n        self.slots.move(slot, SlotEvent.RETIRED)\n",
        "        self.slots.move(slot, SlotEvent.RETIRED)\n",
        "the state and the picker are told apart",
    ),
    Mutant(
        "a slot taken back is not picked",
        "fleet",
        "                self.picker.reload(slot, slot.in_flight)\n",
        "",
        "the state and the picker are told apart",
    ),
    Mutant(
        "too many are taken back",
        "fleet",
        "if len(restored) >= wanted or self.slots.connections >= self.max_size:",
        "if len(restored) >= wanted:",
        "what is open already is taken for free",
    ),
    Mutant(
        "what is cut off still weighs",
        "places",
        "        self.load -= self.target if slot.exclusive else slot.in_flight\n        slot.in_flight = 0\n",
        "        slot.in_flight = 0\n",
        "a release would have taken it off",
    ),
    Mutant(
        "the replaced one stays in service",
        "fleet",
        "            self.retire(replaced, replaced.reason, now)\n",
        "            pass\n",
        "it would be closed at its next deadline, if it had one",
    ),
    Mutant(
        "a failed successor stays bound",
        "fleet",
        "        self.slots.part(slot)\n        self.slots.move(slot, SlotEvent.OPEN_FAILED)\n",
        "        self.slots.move(slot, SlotEvent.OPEN_FAILED)\n",
        "that a failed attempt was somebody's successor is easily forgotten",
    ),
    Mutant(
        "what drains is cut off late",
        "fleet",
        "            if slot.deadline <= now:\n",
        "            if slot.deadline < now:\n",
        "the alarm rings at the deadline, not after it",
    ),
    Mutant(
        "backoff is not heeded",
        "fleet",
        "        if now < self.backoff.retry_at:\n            return 0\n",
        "",
        "one attempt at a time looks like backoff",
    ),
    Mutant(
        "dialling has no deadline",
        "fleet",
        "        self.alarm_at(deadline)\n        old = ",
        "        old = ",
        "connections open or fail, one thinks",
    ),
    Mutant(
        "a busy slot is taken for idle by the circle",
        "pickers",
        "        if slot.in_flight:\n            self._idle.pop(slot, None)\n",
        "        if slot.in_flight > before:\n            self._idle.pop(slot, None)\n",
        "only a slot that was given more can cease to be idle, one thinks",
    ),
)
