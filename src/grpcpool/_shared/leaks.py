"""Leases that are held for suspiciously long, and the stacks that acquired them.

All have the same time limit, so they fall due in the order in which they were taken. A dict is all it takes: it keeps
that order and removes from its middle at no cost. Pure, like the machine.
"""

from __future__ import annotations

import dataclasses
import math
import traceback

from .._values.events import Leaked


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A lease that is held.

    Attributes:
        channel: The number of its slot.
        since: The moment it was taken.
        stack: Where, formatted.
    """

    channel: int
    since: float
    stack: str


def stack_of_caller() -> str:
    """Where the method that calls this was called."""
    return "".join(traceback.format_stack()[:-2])


class LeakWatch:
    """Remembers which lease was acquired where; each is reported at most once."""

    def __init__(self, threshold: float) -> None:
        """Reports what is held for `threshold` seconds."""
        self._threshold = threshold
        self._held: dict[object, Held] = {}
        # Read without the lock that guards the rest.
        self._deadline = math.inf

    def taken(self, ticket: object, held: Held) -> None:
        """Notes a lease, with a ticket of its own for `returned`."""
        self._held[ticket] = held
        self._rearm()

    def returned(self, ticket: object) -> None:
        """Forgets a lease."""
        self._held.pop(ticket, None)
        self._rearm()

    def stack_of(self, ticket: object) -> str | None:
        """Where a lease that has been neither returned nor reported was acquired. Without the lock: for finalizers."""
        held = self._held.get(ticket)
        return None if held is None else held.stack

    def overdue(self, now: float, pool: str) -> list[Leaked]:
        """Removes the leases of the pool of this name that have been held for too long; returns the events."""
        late: list[Leaked] = []
        while self._held and self.next_deadline() <= now:
            held = self._held.pop(next(iter(self._held)))
            late.append(Leaked(pool=pool, channel=held.channel, held=now - held.since, stack=held.stack))
            self._rearm()
        return late

    def next_deadline(self) -> float:
        """When the next lease falls due; `math.inf` for never."""
        return self._deadline

    def _rearm(self) -> None:
        first = next(iter(self._held.values()), None)
        self._deadline = math.inf if first is None else first.since + self._threshold
