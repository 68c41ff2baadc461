"""What a test needs to drive a machine: the effects of each event, in the order in which the machine asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpcpool._machine.effects import Effect
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot


class Recorder:
    """Takes what a machine puts into its outbox."""

    def __init__(self, machine: PoolMachine) -> None:
        """Records from now on."""
        self._machine = machine
        self._effects: list[Effect] = []
        # An instance's attribute, so that the machine and its parts find it instead of the method.
        machine.outbox.__dict__["append"] = self._effects.append

    def take(self) -> list[Effect]:
        """The effects since the last time."""
        effects = list(self._effects)
        self._effects.clear()
        return effects

    def effects(self, event: Callable[..., object], *arguments: Any) -> list[Effect]:
        """The effects of one event."""
        event(*arguments)
        return self.take()

    def cancel(self, waiter: Waiter | OpenWaiter, now: float) -> tuple[bool, list[Effect]]:
        """The waiter gives up; returns whether it still waited, and the effects."""
        # By its name: a mutant's machine has classes of its own.
        if hasattr(waiter, "pending"):
            return self._machine.cancel_open(waiter, now), self.take()  # type: ignore[arg-type]
        return self._machine.cancel(waiter, now), self.take()

    def acquire(self, streams: int | None) -> Slot | None:
        """Takes a place the fast way, as drivers do."""
        places = self._machine.places
        if streams is None:
            return places.take_whole(Holding())
        return places.take(Holding()) if streams == 1 else places.acquire(streams, Holding())

    def release(self, slot: Slot, streams: int | None, now: float) -> list[Effect]:
        """Releases a place; returns the effects."""
        if self._machine.places.release(slot, streams, now, Holding(slot)):
            self._machine.settle(slot, now)
        return self.take()
