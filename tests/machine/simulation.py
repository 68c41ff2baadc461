"""A pool in a simulated network, in simulated time: each seed plays some minutes of a pool's life in milliseconds.

Servers die, come back, freeze, refuse streams, and move: in half of the lives each has an address of its own, and which
of them a look-up finds changes, or it fails, or hangs. Connecting takes time, fails, or hangs. Callers come and go with
deadlines of their own, give up, and discard what they hold; the pool is resized and refreshed. The simulated network
reports what a driver would see, in order of time, and ticks the machine exactly when it asks for a tick. The records
and the invariants are those of the model (`invariants.py`), checked after every step. In addition, no waiter waits past
its deadline, and once the network has recovered, a waiter waits only while all connections that there may be are full.

``python tests/machine/simulation.py SEED`` replays a seed and prints its story.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import pathlib
import sys
from collections.abc import Callable

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from grpcpool._machine.slot import Slot
from machine.settings import REAL, Code, Held, Settings, dice
from machine.world import World

# Seconds of trouble, then seconds of quiet in which everything must come to rest.
_TROUBLE, _QUIET = 40.0, 150.0


@dataclasses.dataclass(eq=False, slots=True)
class Backend:
    """A server: whether it runs, whether it is frozen, and how many streams it allows on one connection."""

    number: int
    limit: int
    up: bool = True
    frozen: bool = False
    # Whether look-ups find it.
    listed: bool = True


class Simulation:
    """One seed's network, callers and pool."""

    def __init__(self, seed: int, log: Callable[[str], object] = lambda _: None, code: Code = REAL) -> None:
        """Decides everything that can be decided beforehand; `log` receives the story, line by line."""
        self.rng = rng = dice(seed)
        self.log = log
        max_size, max_streams = rng.randint(1, 6), rng.randint(1, 8)
        settings = Settings(
            min_size=rng.randint(0, max_size),
            max_size=max_size,
            target_streams=rng.randint(1, max_streams),
            max_streams=max_streams,
            loose=rng.random() < 0.3,
            max_overflow=rng.randint(0, 3),
            max_waiters=rng.choice([None, 2, 50]),
            idle_timeout=rng.choice([None, 3.0, 10.0]),
            max_age=rng.choice([None, 7.0, 20.0]),
            drain_timeout=rng.choice([1.0, 30.0]),
            picker=rng.choice(["least_loaded", "fill", "round_robin"]),
            addresses=rng.choice([0, 0, 1, 2, 3, 5]),
            either_family=rng.random() < 0.2,
        )
        self.world = World(settings, seed=seed, code=code)
        self.began = self.world.now
        self.backends = [
            Backend(number, limit=rng.choice([2, max_streams, 100]))
            for number in range(settings.addresses or rng.randint(1, 3))
        ]
        self._sees_look = False
        self.backend_of: dict[Slot, Backend] = {}
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        # What the network has already dealt with: dials, and grants that carry calls.
        self._seen_dials: set[Slot] = set()
        self._seen_held: set[Held] = set()
        # Those whose calls the server runs.
        self._accepted: set[Held] = set()
        self.healed = False
        log(str(settings))

    # --- the clock ----------------------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Schedules `action` in `delay` seconds."""
        heapq.heappush(self._events, (self.world.now + delay, next(self._numbers), action))

    def run(self) -> None:
        """Plays the whole life.

        Raises:
            AssertionError: The machine went wrong.
        """
        self._callers_come()
        self._trouble_comes()
        self._go_on_until(self.began + _TROUBLE)
        self._heal()
        self._go_on_until(self.began + _TROUBLE + _QUIET)
        assert self._is_full() or not self.world.waiting, "the network has recovered, and a waiter still waits"
        assert not self.world.openers, "the network has recovered, and a waiter still waits in open()"
        self._check_addresses()
        self.world.finish(grace=self.rng.choice([0.0, 2.0]), rest_first=self.rng.random() < 0.5)

    def _go_on_until(self, end: float) -> None:
        world = self.world
        while True:
            alarm = world.machine.next_deadline()
            event = self._events[0][0] if self._events else math.inf
            moment = min(alarm, event)
            if moment > end:
                world.now = end
                return
            world.now = max(world.now, moment)
            if alarm <= event:
                world.tick()
            else:
                heapq.heappop(self._events)[2]()
            self._notice()
            overdue = [waiter for waiter in world.waiting if waiter.deadline < world.now]
            assert not overdue, f"waits past its deadline: {overdue}"

    # --- callers ------------------------------------------------------------------------------------------------

    def _callers_come(self) -> None:
        rng, world = self.rng, self.world
        busy = rng.choice([0.3, 1.0, 3.0])
        moment = 0.0
        while (moment := moment + rng.expovariate(busy)) < _TROUBLE:
            streams = rng.choice([None, 1, 1, 1, 1, 1, min(2, world.config.max_streams)])
            # Every waiter has its answer within these seconds, so none waits longer than the quiet lasts.
            patience = rng.choice([0.0, 0.5, 3.0, 20.0, 100.0])
            self.at(moment, lambda streams=streams, patience=patience: self._ask(streams, patience))  # type: ignore[misc]
        for action in (self._cancel, self._discard, self._resize, self._refresh, self._open, self._connect):
            for _ in range(rng.randint(0, 4)):
                self.at(rng.uniform(0, _TROUBLE), action)

        # Some go on in the quiet, so that the pool stays in use.
        for moment in range(int(_TROUBLE), int(_TROUBLE + _QUIET) - 10, 2):
            self.at(moment, lambda: self._ask(1, 20.0))

    def _ask(self, streams: int | None, patience: float) -> None:
        fail_fast = streams == 1 and self.rng.random() < 0.5
        self.log(f"{self.time()} request for {streams}, patience {patience} s{', fail-fast' if fail_fast else ''}")
        self.world.request(streams, patience=patience, fail_fast=fail_fast)

    def _cancel(self) -> None:
        self.world.cancel(self.rng.randrange(64))

    def _discard(self) -> None:
        self.world.discard(self.rng.randrange(64))

    def _resize(self) -> None:
        max_size = self.rng.randint(1, 6)
        min_size = self.rng.randint(0, max_size)
        self.log(f"{self.time()} resized: {min_size} to {max_size}")
        self.world.resize(min_size, max_size)

    def _refresh(self) -> None:
        self.log(f"{self.time()} refreshed")
        self.world.refresh()

    def _open(self) -> None:
        self.world.open(patience=self.rng.choice([0.5, 5.0]))

    def _connect(self) -> None:
        self.world.connect()

    # --- the network --------------------------------------------------------------------------------------------

    def _notice(self) -> None:
        """Handles new dials and grants until there are none."""
        while True:
            if self.world.looks and not self._sees_look:
                self._sees_look = True
                self.at(self.rng.choice([0.01, 0.5, 3.0]), self._looked)
            dials = [slot for slot in self.world.dials if slot not in self._seen_dials]
            held = [held for held in self.world.held if held not in self._seen_held]
            if not dials and not held:
                return
            for slot in dials:
                self._seen_dials.add(slot)
                self._connects(slot)
            for one in held:
                self._seen_held.add(one)
                self._carries(one)

    def _looked(self) -> None:
        """The look-up under way has its answer: some servers, or nothing."""
        self._sees_look = False
        fails = not self.healed and self.rng.random() < 0.2
        names = [name for name, backend in zip(self.world.possible, self.backends, strict=True) if backend.listed]
        self.log(f"{self.time()} looked up: {'failed' if fails else names}")
        self.world.looked_up([] if fails else names)

    def _moves(self, backend: Backend, *, listed: bool) -> None:
        """From now on look-ups find the server, or do not."""
        self.log(f"{self.time()} server {backend.number} is {'listed' if listed else 'not listed any more'}")
        backend.listed = listed

    def _is_full(self) -> bool:
        """Whether there are as many connections as there may be, all full: calls may come faster than they end."""
        slots = self.world.slots
        in_use = all(slot.state == "ready" and slot.in_flight >= slot.limit for slot in slots)
        return in_use and len(slots) == self.world.machine.fleet.max_size

    def _check_addresses(self) -> None:
        """Long after the last change, each address that look-ups find has its share, and no other has a connection."""
        if self.world.possible and not self.world.closing and self.world.machine.fleet.active:
            used = self.world.machine.fleet.addresses._used
            held = [slot.address for slot in self.world.slots if slot.state != "draining" and slot.successor is None]
            assert {*held} <= used.keys(), f"no. 13: {held} of {used.keys()}"
            numbers = [held.count(name) for name in used]
            assert max(numbers) - min(numbers) <= 1, f"no. 13: {numbers}"

    def _connects(self, slot: Slot) -> None:
        known = slot.address in self.world.possible
        backend = self.backends[self.world.possible.index(slot.address)] if known else self.rng.choice(self.backends)  # type: ignore[arg-type]
        self.backend_of[slot] = backend
        takes = self.rng.choice([0.001, 0.05, 0.5])
        if self.healed or self.rng.random() < 0.9:
            self.at(takes, lambda: self._connected(slot, backend))
        # Otherwise it hangs: the machine has its own deadline for that.

    def _connected(self, slot: Slot, backend: Backend) -> None:
        if slot not in self.world.dials or (backend.frozen and slot in self.world.slots):
            return
        well = backend.up and (self.healed or self.rng.random() < 0.9)
        self.log(f"{self.time()} {slot} to server {backend.number}: {'connected' if well else 'failed'}")
        index = self.world.dials.index(slot)
        (self.world.opened if well else self.world.open_failed)(index)

    def _carries(self, held: Held) -> None:
        """A grant ends by itself, is refused by the server, or fails with it."""
        backend = self.backend_of[held.slot]
        self._accepted = {one for one in self._accepted if one in self.world.held}
        running = sum(one.streams or 1 for one in self._accepted if one.slot is held.slot)
        refuses = held.streams == 1 and running >= backend.limit
        if not refuses:
            self._accepted.add(held)
        if refuses and held.slot.state == "ready":
            self.at(0.002, lambda: self._is_refused(held))
        elif not backend.up or held.slot.state == "lost":
            self.at(0.001, lambda: self._ends(held))
        else:
            self.at(self.rng.choice([0.0, 0.05, 1.0, 5.0]), lambda: self._ends(held))

    def _ends(self, held: Held) -> None:
        if held not in self.world.held:
            return
        backend = self.backend_of[held.slot]
        if backend.frozen and held.slot in self.world.slots:
            self.at(0.5, lambda: self._ends(held))
            return
        self.world.release(self.world.held.index(held))

    def _is_refused(self, held: Held) -> None:
        candidates = [one for one in self.world.held if one.streams == 1 and one.slot in self.world.slots]
        if held in candidates:
            self.log(f"{self.time()} {held.slot} refuses a stream")
            self.world.refused_stream(candidates.index(held), self.world.now - 0.002)
            # As a driver does, send the call again.
            self.world.request(1, patience=5.0, fail_fast=False)

    # --- trouble ------------------------------------------------------------------------------------------------

    def _trouble_comes(self) -> None:
        rng = self.rng
        for backend in self.backends:
            for _ in range(rng.randint(0, 3)):
                listed = rng.random() < 0.5
                self.at(
                    rng.uniform(0, _TROUBLE),
                    lambda backend=backend, listed=listed: self._moves(backend, listed=listed),  # type: ignore[misc]
                )
            moment = 0.0
            while (moment := moment + rng.expovariate(1 / 15)) < _TROUBLE:
                lasts = rng.choice([0.01, 1.0, 8.0])
                if rng.random() < 0.7:
                    self.at(moment, lambda backend=backend, lasts=lasts: self._dies(backend, lasts))  # type: ignore[misc]
                else:
                    self.at(moment, lambda backend=backend, lasts=lasts: self._freezes(backend, lasts))  # type: ignore[misc]

    def _dies(self, backend: Backend, lasts: float) -> None:
        self.log(f"{self.time()} server {backend.number} dies for {lasts} s")
        backend.up = False
        for slot in [slot for slot, other in self.backend_of.items() if other is backend and slot in self.world.slots]:
            # The failure may reach its calls before it reaches the pool, or after.
            for held in [held for held in self.world.held if held.slot is slot]:
                self.at(self.rng.uniform(0, 0.004), lambda held=held: self._ends(held))  # type: ignore[misc]
            self.at(self.rng.uniform(0, 0.004), lambda slot=slot: self._is_lost(slot))  # type: ignore[misc]
        self.at(lasts, lambda: self._comes_back(backend))

    def _is_lost(self, slot: Slot) -> None:
        there = [other for other in self.world.slots if other.state != "opening"]
        if slot in there:
            self.world.lost(there.index(slot))

    def _comes_back(self, backend: Backend) -> None:
        self.log(f"{self.time()} server {backend.number} is back")
        backend.up = True
        for slot in [slot for slot, other in self.backend_of.items() if other is backend and slot in self.world.slots]:
            self.at(self.rng.uniform(0, 1.0), lambda slot=slot: self._is_back(slot))  # type: ignore[misc]

    def _is_back(self, slot: Slot) -> None:
        down = [other for other in self.world.slots if other.state == "lost"]
        if slot in down and self.backend_of[slot].up:
            self.world.recovered(down.index(slot))

    def _freezes(self, backend: Backend, lasts: float) -> None:
        self.log(f"{self.time()} server {backend.number} freezes for {lasts} s")
        backend.frozen = True
        self.at(lasts, lambda: setattr(backend, "frozen", False))

    def _heal(self) -> None:
        self.log(f"{self.time()} everything works from here on")
        self.healed = True
        for backend in self.backends:
            backend.up, backend.frozen, backend.listed = True, False, True
        for slot in [slot for slot in self.world.slots if slot.state == "lost"]:
            self.at(self.rng.uniform(0, 1.0), lambda slot=slot: self._is_back(slot))  # type: ignore[misc]

    def time(self) -> str:
        """Seconds since the start."""
        return f"{self.world.now - self.began:8.3f}"


def simulate(seed: int, log: Callable[[str], object] = lambda _: None, code: Code = REAL) -> None:
    """Plays the life of one seed.

    Raises:
        AssertionError: The machine went wrong; the message has the seed.
    """
    simulation = Simulation(seed, log, code)
    try:
        simulation.run()
    except Exception as error:
        text = f"seed {seed}, {simulation.time()} s: {error!r}; replay: python tests/machine/simulation.py {seed}"
        raise AssertionError(text) from error


def main() -> None:
    """``SEED`` replays one with its story; ``FIRST COUNT`` runs many."""
    first, *count = map(int, sys.argv[1:])
    if count:
        for seed in range(first, first + count[0]):
            simulate(seed)
        print(f"{count[0]} seeds from {first} on: all passed")  # noqa: T201 -- a script
    else:
        simulate(first, print)


if __name__ == "__main__":
    main()
