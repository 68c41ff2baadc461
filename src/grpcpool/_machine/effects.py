"""What the machine asks of a driver, to be carried out after the driver has let go of its lock.

Plain slotted objects, made only when there is something to do: an uncontended acquire or release makes none.
"""

from __future__ import annotations

from .._values.errors import Figures, Refusal
from .._values.events import AnyEvent
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
    """Tell the waiter that he has his place on the slot. It is taken; if he has gone, release it."""

    __slots__ = ("slot", "waiter")

    def __init__(self, waiter: Waiter, slot: Slot) -> None:
        """For `waiter`, on `slot`."""
        self.waiter = waiter
        self.slot = slot


class Refuse:
    """Tell the waiter that he gets nothing, and why."""

    __slots__ = ("cause", "figures", "refusal", "waiter")

    def __init__(self, waiter: Waiter, refusal: Refusal, figures: Figures, cause: BaseException | None) -> None:
        """For `waiter`; `cause` is the last connect error, if there is one."""
        self.waiter = waiter
        self.refusal = refusal
        self.figures = figures
        self.cause = cause


class Started:
    """Tell an `OpenWaiter` that what it waited for is open."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter) -> None:
        """For `waiter`."""
        self.waiter = waiter


class Watch:
    """The slot's connection is down: report `recovered` when it is ready again."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        """For `slot`."""
        self.slot = slot


class Notify:
    """Log the event and tell the listeners."""

    __slots__ = ("event",)

    def __init__(self, event: AnyEvent) -> None:
        """Of `event`."""
        self.event = event


class Interrupted:
    """Raise the error, when the rest has been carried out: a signal's handler has raised it amid a change."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        """By `error`."""
        self.error = error


Effect = Open | Close | Grant | Refuse | Started | Watch | Notify | Interrupted
