"""A machine driven by hand: events go in, effects come out as short texts that a test can compare."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from grpcpool import PoolConfig, PoolStats
from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Close, Effect, Grant, Look, Notify, Open, Refuse, Started, Watch
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from grpcpool.events import Closed, Draining
from machine.drive import Recorder

START = 1000.0

ANYWHERE = Addressing()
"""It is not known where connections lead."""


def effect_text(effect: Effect) -> str | None:
    """The effect as a short text; `None` for a notification that does not report an end."""
    word: str | None = type(effect).__name__.lower()
    match effect:
        case Open(slot=slot) if slot.replaces is not None:
            word = f"open {slot.id} for {slot.replaces.id}"
        case Open(slot=slot) | Close(slot=slot) | Grant(slot=slot) | Watch(slot=slot):
            word = f"{word} {slot.id}"
        case Refuse(refusal=refusal):
            word = f"refuse {refusal.name.lower()}"
        case Notify(event=Closed(channel=number, reason=reason)):
            word = f"closed {number}: {reason}"
        case Notify(event=Draining(channel=number, reason=reason)):
            word = f"draining {number}: {reason}"
        case Notify():
            word = None
        case Started():
            pass
    return word


def words(effects: Sequence[Effect]) -> list[str]:
    """The effects as short texts."""
    return [word for effect in effects if (word := effect_text(effect)) is not None]


class Play:
    """A machine, the current time, and every slot ever dialled, by number."""

    def __init__(
        self, *, random: Callable[[], float] = lambda: 0.0, addressing: Addressing = ANYWHERE, **config: Any
    ) -> None:
        """Creates an unused pool with this `PoolConfig`; by default `max_streams` is 2 and `target_streams` is 1."""
        settings = {"max_streams": 2, "target_streams": 1, "min_size": 0, "max_size": 3, "idle_timeout": None}
        self.machine = PoolMachine(PoolConfig(**(settings | config)), name="pool", random=random, addressing=addressing)
        self.recorder = Recorder(self.machine)
        self.now = START
        self.slots: dict[int, Slot] = {}
        self.effects: Sequence[Effect] = ()
        # The number of the last look-up.
        self.look = 0
        self.waiter: Waiter = Waiter(None, since=self.now, deadline=self.now)

    def __getitem__(self, number: int) -> Slot:
        """The slot with that number, closed or not."""
        return self.slots[number]

    def did(self, effects: Sequence[Effect]) -> list[str]:
        """Records the effects and returns them as short texts."""
        self.effects = effects
        self.slots |= {effect.slot.id: effect.slot for effect in effects if isinstance(effect, Open)}
        self.look = max([effect.number for effect in effects if isinstance(effect, Look)], default=self.look)
        return words(effects)

    def request(self, streams: int | None = None, *, wait: float = math.inf, fail_fast: bool = False) -> list[str]:
        """A caller makes a request; its waiter is `self.waiter` from then on."""
        self.waiter = Waiter(streams, since=self.now, deadline=self.now + wait, fail_fast=fail_fast)
        return self.did(self.recorder.effects(self.machine.request, self.waiter, self.now))

    def acquire(self, streams: int | None) -> Slot | None:
        """A place is taken the fast way."""
        return self.recorder.acquire(streams)

    def release(self, number: int, streams: int | None = None) -> list[str]:
        """A caller releases what it holds on slot `number`."""
        return self.did(self.recorder.release(self[number], streams, self.now))

    def discard(self, number: int, streams: int | None = None) -> list[str]:
        """A caller releases what it holds on slot `number` and asks to close the connection."""
        return self.did(
            self.recorder.effects(self.machine.discard, self[number], streams, Holding(self[number]), self.now)
        )

    def opened(self, *numbers: int) -> list[str]:
        """These slots are ready."""
        return [
            word
            for n in numbers
            for word in self.did(self.recorder.effects(self.machine.opened, self[n], object(), self.now))
        ]

    def failed(self, number: int, error: BaseException | None = None) -> list[str]:
        """That slot could not be opened."""
        return self.did(
            self.recorder.effects(self.machine.open_failed, self[number], error or ConnectionError("refused"), self.now)
        )

    def unreachable(self, number: int) -> list[str]:
        """The channel of that slot does not connect."""
        error = ConnectionError("silent")
        return self.did(self.recorder.effects(self.machine.unreachable, self[number], object(), error, self.now))

    def lost(self, number: int, error: BaseException | None = None) -> list[str]:
        """That slot is down; a call has shown it if there is an `error`."""
        return self.did(self.recorder.effects(self.machine.lost, self[number], error, self.now))

    def blocked(self, number: int, *, for_good: bool = False) -> list[str]:
        """A signal handler has raised in gRPC on that slot, which does not come back if that is `for_good`."""
        event = partial(self.machine.blocked, for_good=for_good)
        return self.did(self.recorder.effects(event, self[number], self.now))

    def unfit(self, number: int, streams: int | None = None, waiter: Waiter | None = None) -> list[str]:
        """That slot, just granted, maybe to a waiter, turns out to be down."""
        slot = self[number]
        return self.did(self.recorder.effects(self.machine.unfit, slot, streams, Holding(slot), waiter, self.now))

    def refused_stream(self, number: int) -> list[str]:
        """The server refuses a call on that slot."""
        return self.did(
            self.recorder.effects(self.machine.refused_stream, self[number], Holding(self[number]), self.now, self.now)
        )

    def recovered(self, number: int) -> list[str]:
        """That slot is up again."""
        return self.did(self.recorder.effects(self.machine.recovered, self[number], self.now))

    def found(self, *names: str, look: int | None = None) -> list[str]:
        """The last look-up, or another one, has found these addresses."""
        return self.did(self.recorder.effects(self.machine.addresses_found, names, look or self.look, self.now))

    def look_failed(self, look: int | None = None) -> list[str]:
        """The last look-up, or another one, has failed."""
        error = OSError("no such name")
        return self.did(self.recorder.effects(self.machine.look_up_failed, error, look or self.look, self.now))

    def open(self, *, wait: float = math.inf) -> OpenWaiter:
        """A caller calls `open()`."""
        waiter = OpenWaiter(since=self.now, deadline=self.now + wait)
        self.did(self.recorder.effects(self.machine.open, waiter, self.now))
        return waiter

    def cancel(self, waiter: Waiter | OpenWaiter | None = None) -> tuple[bool, list[str]]:
        """The last waiter, or `waiter`, gives up."""
        said, effects = self.recorder.cancel(waiter or self.waiter, self.now)
        return said, self.did(effects)

    def resize(self, min_size: int, max_size: int) -> list[str]:
        """The bounds change."""
        return self.did(self.recorder.effects(self.machine.resize, min_size, max_size, self.now))

    def refresh(self) -> list[str]:
        """`refresh()` is called."""
        return self.did(self.recorder.effects(self.machine.refresh, self.now))

    def close(self, grace: float = 0.0) -> list[str]:
        """The pool is closed."""
        return self.did(self.recorder.effects(self.machine.close, self.now + grace, self.now))

    def tick(self, after: float = 0.0) -> list[str]:
        """A tick after this many seconds."""
        self.now += after
        return self.did(self.recorder.effects(self.machine.tick, self.now))

    def tick_in_time(self) -> list[str]:
        """A tick exactly at the next deadline."""
        self.now = self.machine.next_deadline()
        return self.tick()

    def filled(self, *streams: int | None) -> None:
        """Brings the pool to a state in which all these requests are granted, dialling as needed."""
        for ask in streams:
            self.request(ask)
            for slot in list(self.slots.values()):
                if slot.state == "opening":
                    self.opened(slot.id)

    @property
    def stats(self) -> PoolStats:
        """A snapshot of the current state."""
        return self.machine.stats(lambda at: dt.datetime.fromtimestamp(at, tz=dt.UTC), self.now)

    @property
    def refusal(self) -> Refuse:
        """The only refusal among the last effects."""
        (refusal,) = [effect for effect in self.effects if isinstance(effect, Refuse)]
        return refusal

    def states(self) -> dict[int, str]:
        """The states of the open and opening slots, by number."""
        return {slot.id: str(slot.state) for slot in self.machine.fleet.slots}


def calls(*loads: int, **config: Any) -> Play:
    """A pool whose connections carry these numbers of calls; `max_streams` is 8 and `target_streams` 4."""
    play = Play(**({"max_size": len(loads), "max_streams": 8, "target_streams": 4} | config))
    play.filled(*[None for _ in loads])
    for number in range(1, len(loads) + 1):
        play.release(number)
    for number, load in enumerate(loads, 1):
        for _ in range(load):
            play.machine.places.acquire(1, Holding(), play[number])
    return play
