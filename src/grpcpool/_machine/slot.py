"""One connection's life: its states, the table of its transitions, and what it carries.

A slot holds one connection. It is created when the pool decides to dial, and is gone when it is closed; its number is
never used again.

::

       +----------- unreachable ------------+
       |                                    v
       |        opened             lost
    OPENING ------------> READY ---------> LOST
       |                 |  ^  ^            |  |
       | open_failed,    |  |  +------------+  |
       | closed          |  |     recovered    | retired
       |          retired|  |restored          |
       v                 v  |                  |
    CLOSED <----------- DRAINING <-------------+
             closed

Invariants:
    * A slot moves only along `TRANSITIONS`; anything else is a bug of the machine and raises.
    * ``0 <= in_flight <= limit``.
    * An exclusive slot carries exactly one whole-connection lease.
    * A closed slot carries nothing.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Sequence
from typing import Any

from .._values.slot_states import CloseReason, SlotState


class SlotEvent(enum.StrEnum):
    """What moves a slot from one state to the next."""

    OPENED = "opened"
    OPEN_FAILED = "open_failed"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    RECOVERED = "recovered"
    RETIRED = "retired"
    RESTORED = "restored"
    CLOSED = "closed"


TRANSITIONS: dict[tuple[SlotState, SlotEvent], SlotState] = {
    (SlotState.OPENING, SlotEvent.OPENED): SlotState.READY,
    (SlotState.OPENING, SlotEvent.OPEN_FAILED): SlotState.CLOSED,
    (SlotState.OPENING, SlotEvent.UNREACHABLE): SlotState.LOST,
    (SlotState.OPENING, SlotEvent.CLOSED): SlotState.CLOSED,
    (SlotState.READY, SlotEvent.LOST): SlotState.LOST,
    (SlotState.READY, SlotEvent.RETIRED): SlotState.DRAINING,
    (SlotState.LOST, SlotEvent.RECOVERED): SlotState.READY,
    (SlotState.LOST, SlotEvent.RETIRED): SlotState.DRAINING,
    (SlotState.DRAINING, SlotEvent.RESTORED): SlotState.READY,
    (SlotState.DRAINING, SlotEvent.CLOSED): SlotState.CLOSED,
}
"""Every move a slot may make. The state diagram in the documentation is drawn from this table."""


class TransitionError(AssertionError):
    """The machine tried a transition that does not exist: a bug, never a user's mistake."""


class Link:
    """A slot, or the head of a ring, between its neighbours; see `rings.py`."""

    __slots__ = ("next", "previous")

    next: Any
    previous: Any


class Slot(Link):
    """Holds one connection: its state and what it carries. Moments are those of the driver's clock."""

    __slots__ = (
        "_limit",
        "_most",
        "address",
        "announced",
        "answered_at",
        "avoided_until",
        "awaits_address",
        "back_at",
        "been_up",
        "beside",
        "blocked",
        "broken",
        "calls",
        "carries_up_to",
        "channel",
        "deadline",
        "dialled",
        "doubted_until",
        "down",
        "endpoint",
        "exclusive",
        "failures",
        "given_up_at",
        "hangs",
        "hangs_at",
        "heard",
        "heard_before",
        "id",
        "in_flight",
        "kept",
        "kept_until",
        "limit_grows_at",
        "lost_at",
        "lost_by_call",
        "opened_at",
        "overdue_calls",
        "overflow",
        "pauses",
        "probes",
        "reason",
        "recent_failures",
        "refused_alone",
        "refused_alone_at",
        "refused_at",
        "replaces",
        "reserved",
        "retire_at",
        "returns_at",
        "rings",
        "silence_factor",
        "silent_at",
        "state",
        "successor",
        "takes_up_to",
        "unused_since",
        "used_at",
    )

    def __init__(self, number: int, *, limit: int, now: float, deadline: float) -> None:
        """Creates the slot of a connection that is about to be dialled.

        Args:
            number: Its number in the pool.
            limit: Streams it may carry.
            now: The moment.
            deadline: When the attempt to open it counts as failed.
        """
        self.id = number
        self.state = SlotState.OPENING

        # What it carries, and may carry: see `places.py`, `limits.py`, `reservation.py`.
        self.in_flight = 0
        self.exclusive = False
        # Places that it has ever granted.
        self.calls = 0
        # Whether it is kept for a waiter that asks for much: then it takes nothing else.
        self.reserved = False
        # How much it may carry at most, and until when, while it is in doubt whether it is up.
        self._most, self.doubted_until = sys.maxsize, math.inf
        self.limit = limit
        # When a limit that the server has lowered grows by a step.
        self.limit_grows_at = math.inf
        # When it last refused a call; when it was opened, if it has not.
        self.refused_at = now
        # When it last refused a call that was alone, and how often it has in a row.
        self.refused_alone_at, self.refused_alone = -math.inf, 0

        # Its order among others, see `rings.py`: its neighbours in a ring, `None` if it is in none; the rings that it
        # may be in, by what it carries.
        self.next = self.previous = None
        self.rings: Sequence[Link] = ()

        # The driver's: a grpc.Channel, a grpc.aio.Channel, or a fake; and whether it has begun to open that.
        self.channel: Any = None
        self.dialled = False

        # Where it leads; `None` if that is not known. Whether it is dialled only after a look-up. See `addresses.py`.
        self.address: str | None = None
        self.awaits_address = False
        # Which target that is, in the order of preference; whether it only finds out if a preferred one is up; whether
        # it is kept while another one is used, and when that ends: when it is closed, or when its target is used again.
        # See `endpoints.py`.
        self.endpoint = 0
        self.probes = False
        self.kept, self.kept_until, self.returns_at = False, math.inf, math.inf

        # While OPENING: when it is no longer counted on, and whether that has come; whether it was dialled because
        # others hang.
        self.hangs_at, self.hangs = math.inf, False
        self.beside = False
        # While OPENING: when the attempt fails. While DRAINING: when its calls are cancelled.
        self.deadline = deadline
        # When it was dialled; from then on, when it came up. Whether it ever has.
        self.opened_at = now
        self.been_up = False
        # Whether it is beyond `max_size`.
        self.overflow = False

        # When a place on it was last released, or a call on a lease ended; before the first: since when it, or the slot
        # that it replaced, has been idle.
        self.used_at = self.unused_since = now
        # When it was taken back, if it drained: it has all of `idle_timeout` again.
        self.back_at = -math.inf

        # What is dialled to replace it, and what it was dialled to replace.
        self.successor: Slot | None = None
        self.replaces: Slot | None = None
        # When it is due for a successor, by its age or because of a refresh; why it is to be replaced, or drains.
        self.retire_at, self.reason = math.inf, CloseReason.AGE

        # Whether it was down when that was last known, whatever its state.
        self.down = False
        # While LOST: since when; whether a call has shown that; whether it was announced, and not only suspected.
        self.lost_at, self.lost_by_call, self.announced = math.inf, False, True
        # While LOST: whether gRPC pauses before it tries to connect again (set by the driver); when it is given up, and
        # replaced if it is needed.
        self.pauses, self.given_up_at = False, math.inf
        # Whether gRPC may hold the lock of its channel for ever: then no call is made on it.
        self.blocked = False
        # Whether it may lack what serves its calls, although it is up: then it does not come back.
        self.broken = False

        # Calls on it that failed as calls do on a sick server: in all, and of late, until then. See `handicaps.py`.
        self.failures = self.recent_failures = 0
        self.avoided_until = math.inf

        # When it last answered, as far as that is known; when the last call ended without an answer; how many calls
        # have ended at their deadline since the answer; how many times longer than others it may be silent; messages
        # that its streams have received (counted by the driver), and how many by the last look. See `silence.py`.
        self.answered_at, self.silent_at = now, -math.inf
        self.overdue_calls = 0
        self.silence_factor = 1
        self.heard = self.heard_before = 0

    @property
    def limit(self) -> int:
        """Streams that it may carry."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._bound()

    def reserve(self, *, reserved: bool) -> None:
        """Keeps what becomes free for one waiter, or ends that. `Places.refresh` has to follow."""
        self.reserved = reserved
        self._bound()

    def doubt(self, until: float) -> None:
        """It may be down: takes one stream more than it carries, until then. `Places.refresh` has to follow."""
        if self.doubted_until == math.inf:
            self._most = self.in_flight + 1
        self.doubted_until = until
        self._bound()

    @property
    def doubted(self) -> bool:
        """Whether it is in doubt that it is up."""
        return self.doubted_until < math.inf

    def trust(self) -> None:
        """Ends the doubt. `Places.refresh` has to follow."""
        self._most, self.doubted_until = sys.maxsize, math.inf
        self._bound()

    def _bound(self) -> None:
        # How many streams it may have with those of the next ask; and the same for asks it is not reserved for, which
        # is what a picker has to know.
        self.carries_up_to = min(self._limit, self._most)
        self.takes_up_to = 0 if self.reserved else self.carries_up_to

    def move(self, event: SlotEvent) -> None:
        """Moves to the next state, according to the table.

        Raises:
            TransitionError: There is no such transition.
        """
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise TransitionError(f"slot {self.id}: {event} while {self.state}")
        self.state = state

    def has_room(self, streams: int | None) -> bool:
        """Whether the ask fits on what the slot carries now: `streams` more, or (`None`) all of it, alone."""
        if streams is None:
            return self.in_flight == 0 < self.carries_up_to
        return not self.exclusive and self.in_flight + streams <= self.carries_up_to

    def idle_since(self) -> float:
        """Since when a slot with nothing in flight has been idle."""
        return self.used_at if self.calls else self.unused_since

    def counts_as_idle_since(self) -> float:
        """Since when it counts as idle towards `idle_timeout`: what has been taken back begins again."""
        return max(self.idle_since(), self.back_at)

    def __repr__(self) -> str:
        """The slot at a glance, for debugging the machine."""
        how = " exclusive" if self.exclusive else ""
        return f"<Slot {self.id} {self.state} {self.in_flight}/{self.limit}{how}>"
