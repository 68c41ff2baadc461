"""A pool with several targets, driven by hand."""

from __future__ import annotations

from typing import Any

from grpcpool import PoolConfig
from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Close, Grant, Look, Notify, Open, Refuse, Started, Watch
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.drive import Recorder

START = 1000.0


class Ordered:
    """A pool with several targets. Each has one address, which a look-up finds at once."""

    def __init__(self, targets: int = 2, **settings: Any) -> None:
        """With these settings."""
        addressing = Addressing(looked_up=True, every=30.0, endpoints=targets)
        self.machine = PoolMachine(PoolConfig(**settings), name="pool", random=lambda: 0.0, addressing=addressing)
        self.recorder = Recorder(self.machine)
        self.now = START
        self.slots: dict[int, Slot] = {}
        self.granted: list[int] = []
        self.answers: list[type] = []
        self.closed: set[int] = set()

    def commit(self) -> None:
        """Carries out what the machine asks for, and ticks it."""
        while True:
            for effect in self.recorder.take():
                match effect:
                    case Open(slot=slot):
                        self.slots[slot.id] = slot
                    case Close(slot=slot):
                        self.closed.add(slot.id)
                    case Grant(slot=slot):
                        self.granted.append(slot.id)
                    case Refuse() | Started():
                        self.answers.append(type(effect))
                    case Look(number=number):
                        self.machine.addresses_found([f"10.0.0.{self.machine.fleet.endpoint}:1"], number, self.now)
                    case Notify() | Watch():
                        pass
                    case _:
                        raise AssertionError(effect)
            if self.machine.next_deadline() > self.now and not self.recorder._effects:
                return
            self.machine.tick(self.now)

    def advance(self, seconds: float) -> None:
        """Time passes, and the machine is ticked in time."""
        end = self.now + seconds
        while (alarm := self.machine.next_deadline()) <= end:
            self.now = max(self.now, alarm)
            self.commit()
        self.now = end
        self.commit()

    def call(self) -> int | None:
        """A call: the number of its slot; `None` if it waits or fails."""
        before = len(self.granted)
        self.machine.request(Waiter(1, since=self.now, deadline=self.now + 60), self.now)
        self.commit()
        return self.granted[-1] if len(self.granted) > before else None

    def open(self, patience: float = 60.0) -> None:
        """A caller calls `open()`."""
        self.machine.open(OpenWaiter(since=self.now, deadline=self.now + patience), self.now)
        self.commit()

    def discard(self, number: int) -> None:
        """What is held on the slot is released, and its connection is not to be used again."""
        self.machine.discard(self.slots[number], 1, Holding(self.slots[number]), self.now)
        self.commit()

    def refresh(self) -> None:
        """All connections are to be replaced."""
        self.machine.refresh(self.now)
        self.commit()

    def end(self, number: int) -> None:
        """A call on the slot ends."""
        self.machine.release(self.slots[number], 1, Holding(self.slots[number]), self.now)
        self.commit()

    def opened(self, number: int) -> None:
        """The slot's connection is up."""
        self.machine.opened(self.slots[number], object(), self.now)
        self.commit()

    def failed(self, number: int) -> None:
        """The slot's connection could not be made."""
        self.machine.open_failed(self.slots[number], ConnectionError("refused"), self.now)
        self.commit()

    def lost(self, number: int) -> None:
        """The slot's connection is down."""
        self.machine.lost(self.slots[number], ConnectionError("reset"), self.now)
        self.commit()

    @property
    def endpoint(self) -> int:
        """The target that is used."""
        return self.machine.fleet.endpoint

    def opening(self, endpoint: int) -> list[int]:
        """The connections to a target that are being opened."""
        return [s.id for s in self.machine.fleet.slots if s.state == "opening" and s.endpoint == endpoint]

    def refuse(self, seconds: int) -> None:
        """The first target refuses connections for that time."""
        for _ in range(seconds):
            for number in self.opening(0):
                self.failed(number)
            self.advance(1.0)

    def fail_over(self) -> None:
        """The first target cannot be reached for long enough; the second can."""
        self.call()
        self.refuse(12)
        for number in self.opening(0):
            self.failed(number)
        assert self.endpoint == 1
        self.opened(self.opening(1)[0])

    def stand_by(self) -> int:
        """The first target can be reached again, and is not used yet; returns the number of its connection."""
        while not self.opening(0):
            self.advance(1.0)
        (probe,) = self.opening(0)
        self.opened(probe)
        return probe

    def come_back(self) -> int:
        """The first target can be reached again, and is used; returns the number of its connection."""
        probe = self.stand_by()
        self.advance(6.0)
        assert self.endpoint == 0
        return probe
