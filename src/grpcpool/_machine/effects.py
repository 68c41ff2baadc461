"""What the machine asks of a driver, which carries it out after it has let go of its lock.

Effects leave the machine in three queues, which are carried out in this order: acts, which are quick and run no foreign
code; events, which go to the log and to listeners; and connections to open. So a slow listener delays no answer, and
`opening` is emitted before the factory is called. An uncontended acquire or release creates no effect.

An act, or a connection to open, stays at the head of its queue until it has been carried out. So it is not lost if that
is interrupted. An event is removed first, because it must not be emitted twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from .._values.errors import Figures, Refusal
from .._values.events import AnyEvent
from .openers import OpenWaiter
from .queue import Waiter
from .slot import Slot


class Open:
    """Dial a connection for the slot, make it ready, prime it; then report `opened` or `open_failed`."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        """For `slot`."""
        self.slot = slot


class Close:
    """Close the slot's channel and whatever is still being done to open it. Calls on it are cancelled."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        """For `slot`."""
        self.slot = slot


class Grant:
    """Notify the waiter that it has its place on the slot. The place is taken; a waiter that has gone releases it."""

    __slots__ = ("slot", "waiter")

    def __init__(self, waiter: Waiter, slot: Slot) -> None:
        """For `waiter`, on `slot`."""
        self.waiter = waiter
        self.slot = slot


class Refuse:
    """Notify the waiter that it gets nothing, and why."""

    __slots__ = ("cause", "figures", "refusal", "waiter")

    def __init__(
        self, waiter: Waiter | OpenWaiter, refusal: Refusal, figures: Figures, cause: BaseException | None
    ) -> None:
        """For `waiter`; `cause` is the last connect error, if there is one."""
        self.waiter = waiter
        self.refusal = refusal
        self.figures = figures
        self.cause = cause


class Started:
    """Notify the caller of `open()` that the connections it waited for are ready."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: OpenWaiter) -> None:
        """For `waiter`."""
        self.waiter = waiter


class Watch:
    """The slot's connection is down: report `recovered` when it is ready again."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        """For `slot`."""
        self.slot = slot


class Look:
    """Look up the addresses in the background; then report `addresses_found` or `look_up_failed`, with the number.

    The target is the one in use when it is carried out: if that changes, the result is of no use.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        """The look-up with this number."""
        self.number = number


class Notify:
    """Log the event and pass it to the listeners."""

    __slots__ = ("event",)

    def __init__(self, event: AnyEvent) -> None:
        """Of `event`."""
        self.event = event


Act = Close | Grant | Look | Refuse | Started | Watch
Effect = Act | Notify | Open

T = TypeVar("T")


class EffectQueue(deque[T], Generic[T]):
    """Effects in the order in which the machine asked for them. One thread at a time carries them out.

    Attributes:
        claimed: Whether a thread carries them out; the driver sets it under its lock.
        tried: The act that is being carried out; one that fails twice is dropped.
    """

    __slots__ = ("claimed", "tried")

    def __init__(self) -> None:
        """Creates an empty queue."""
        super().__init__()
        self.claimed = False
        self.tried: T | None = None

    def drain(self, carry_out_next: Callable[[Self], None]) -> None:
        """Lets the effects be carried out, one by one, until none is left.

        In a function of its own: if a signal handler raises when a loop repeats, CPython 3.13 does not enter the
        `finally` around the loop, but that around the call.
        """
        while self:
            carry_out_next(self)


class Outbox:
    """The effects that have not been carried out yet."""

    def __init__(self) -> None:
        """Creates empty queues."""
        self.acts: EffectQueue[Act] = EffectQueue()
        self.events: EffectQueue[Notify] = EffectQueue()
        self.opens: EffectQueue[Open] = EffectQueue()

    def append(self, effect: Effect) -> None:
        """Queues `effect`."""
        if isinstance(effect, Notify):
            self.events.append(effect)
        elif isinstance(effect, Open):
            self.opens.append(effect)
        else:
            self.acts.append(effect)
