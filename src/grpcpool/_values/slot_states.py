"""The states of a slot, and the reasons for which one is closed: part of snapshots and events."""

from __future__ import annotations

import enum


class SlotState(enum.StrEnum):
    """Where a connection is in its life."""

    OPENING = "opening"
    """Being dialled, made ready and primed."""
    READY = "ready"
    """In service."""
    LOST = "lost"
    """Known to be down; keeps its calls, counts against `max_size`, is reconnected or replaced if it is needed."""
    DRAINING = "draining"
    """Takes nothing new, closes when the last it carries ends."""
    CLOSED = "closed"
    """Gone from the pool."""


class CloseReason(enum.StrEnum):
    """Why a connection was closed, or takes no new calls."""

    IDLE = "idle"
    """Unused for `idle_timeout`, above `min_size`."""
    AGE = "age"
    """Replaced at `max_age`."""
    SHRINK = "shrink"
    """Fewer connections would have done for a whole `idle_timeout`, or `resize()` lowered the bound."""
    REFRESH = "refresh"
    """Replaced by `refresh()`."""
    OVERFLOW = "overflow"
    """An extra connection of `Mode.LOOSE` that came back."""
    DISCARDED = "discarded"
    """`Lease.discard()`, or a failed `open()` that closed what it had opened."""
    LOST = "lost"
    """Down and replaced, or not needed any more; or unused for as long as one that a call found dead."""
    UNRESPONSIVE = "unresponsive"
    """Replaced because it answered nothing for `unresponsive_after`."""
    ADDRESS_GONE = "address_gone"
    """The target has this address no more, or it was dialled before the target's addresses were known."""
    POOL_CLOSED = "pool_closed"
    """The pool was closed."""
