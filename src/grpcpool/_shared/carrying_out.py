"""Carries out the effects that the machine has put into its outbox: what a driver does without the lock.

The queues of the outbox are carried out one after the other, each in its order, by one thread at a time. What is
interrupted is carried out once more; an act that is interrupted twice is dropped, and an event is emitted once.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, TypeVar, assert_never

from .._machine.effects import Act, Close, EffectQueue, Grant, Look, Notify, Open, Refuse, Started, Watch
from .._machine.slot import Slot
from .._values.errors import refusal_error
from .announcer import Announcer
from .losses import LossWatch

T = TypeVar("T")


class CarryingOut(abc.ABC):
    """The half of a driver that acts."""

    # Set by the driver.
    lock: Any
    announcer: Announcer
    losses: LossWatch

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The pool's name."""

    @abc.abstractmethod
    def open_channel(self, slot: Slot) -> None:
        """Opens the slot's connection in the background, once, and reports the result to the machine."""

    @abc.abstractmethod
    def look_up(self, number: int) -> None:
        """Looks up the target's addresses in the background, and reports the result to the machine."""

    @abc.abstractmethod
    def close_channel(self, slot: Slot) -> None:
        """Closes the slot's channel in the background, and ends what is still being done to open it."""

    def _carry_out(self, queue: EffectQueue[T], carry_out_next: Callable[[EffectQueue[T]], None]) -> None:
        """Carries out a queue of effects in its order, unless another thread, or a caller of this one, is doing so.

        The thread looks at the queue once more after it has left it, so that nothing added meanwhile stays in it.
        """
        while queue:
            mine = False
            try:
                with self.lock:
                    if not queue.claimed:
                        queue.claimed = mine = True
                if not mine:
                    return
                queue.drain(carry_out_next)
            finally:
                if mine:
                    queue.claimed = False

    def _act(self, queue: EffectQueue[Act]) -> None:
        """Carries out the first act, and removes it then: one that was interrupted is carried out once more."""
        act = queue[0]
        again = queue.tried is act
        queue.tried = None if again else act
        try:
            match act:
                case Grant():
                    # Not by keywords, as below: that costs a waiter more than the rest of the method.
                    act.waiter.granted(act.slot)
                case Close(slot=slot):
                    self.close_channel(slot)
                case Refuse(waiter=waiter):
                    waiter.refused(refusal_error(self.name, act.refusal, act.figures, act.cause))
                case Started(waiter=waiter):
                    waiter.started()
                case Watch(slot=slot):
                    self.losses.lost(slot)
                case Look(number=number):
                    self.look_up(number)
                case _:
                    assert_never(act)
        except BaseException:
            if again:
                queue.popleft()
            raise
        queue.popleft()
        queue.tried = None

    def _emit(self, queue: EffectQueue[Notify]) -> None:
        """Emits the first event, once, whatever listeners raise."""
        event = queue[0].event
        try:
            queue.popleft()
        finally:
            self.announcer.emit(event)

    def _dial(self, queue: EffectQueue[Open]) -> None:
        """Opens the first connection. If that is interrupted, it is asked for again; `open_channel` opens it once."""
        slot = queue[0].slot
        self.open_channel(slot)
        queue.popleft()
        self.losses.begin()
