"""Callers of `open()`, and the connections that each waits for."""

from __future__ import annotations

from .._values.errors import PoolError, Refusal
from .slot import Slot


class OpenWaiter:
    """A caller that waits in `open()` until the slots dialled for it are ready. Drivers subclass it.

    Attributes:
        since: When it asked.
        deadline: Moment at which it is refused; `math.inf` for never.
        pending: The slots that it still waits for.
        made: Those of them that became ready.
        before: What was being dialled when it, or the first that still waits, came.
        patient: Whether it waits until its deadline for `min_size` ready connections, whatever fails.
        refusal: Why it gets nothing, once that is decided.
    """

    __slots__ = ("before", "deadline", "made", "patient", "pending", "refusal", "since")

    def __init__(self, *, since: float, deadline: float) -> None:
        """Describes the wait; the machine fills in the slots."""
        self.since = since
        self.deadline = deadline
        self.pending: set[Slot] = set()
        self.made: set[Slot] = set()
        self.before: set[Slot] = set()
        self.patient = False
        self.refusal: Refusal | None = None

    def started(self) -> None:
        """The driver notifies it that the connections are ready."""

    def refused(self, error: PoolError) -> None:
        """The driver notifies it that `open()` failed with `error`."""
