"""What the model keeps of what has happened: the invariants compare the machine with it."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Effect
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.drive import Recorder
from machine.settings import REAL, Code, Held, Settings, dice


class Records:
    """A machine, and what its driver and its callers keep of what it has done."""

    def __init__(self, settings: Settings, *, seed: int, code: Code = REAL) -> None:
        """Starts with an unused pool; `seed` seeds the machine's randomness."""
        self.code = code
        self.config = settings.config(code)
        self.possible = [
            f"10.0.0.{i}:1" if i % 2 or not settings.either_family else f"[::{i}]:1" for i in range(settings.addresses)
        ]
        looks = bool(self.possible)
        addressing = Addressing(
            looked_up=looks, every=5.0 if looks else None, either_family=settings.either_family, seed=seed
        )
        addressing = addressing._replace(endpoints=settings.endpoints if looks else 1)
        # Whether only look-ups find addresses.
        self.discovered = looks and seed % 2 == 0 and addressing.endpoints == 1 and not settings.either_family
        addressing = addressing._replace(discovered=self.discovered)
        self.machine = code.machine(self.config, name="pool", random=dice(seed).random, addressing=addressing)
        # The look-ups that have not returned, by number: when each began, and for which target.
        self.looks: dict[int, tuple[float, int]] = {}
        # The latest that has found addresses.
        self.found_by = 0
        # Those that are blocked for good.
        self.broken_slots: set[Slot] = set()
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
