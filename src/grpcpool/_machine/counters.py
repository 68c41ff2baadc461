"""What the machine counts, and what snapshots and errors show of a pool."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

from .._values.errors import Figures
from .._values.slot_states import CloseReason, SlotState
from .._values.stats import ChannelStats, Counts, PoolStats
from .slot import Slot
from .slot_table import SlotTable


@dataclasses.dataclass(slots=True)
class Counters:
    """The counters behind `PoolStats`, which the machine updates. What is acquired is counted by each slot."""

    acquired_of_closed: int = 0
    waited: int = 0
    wait_seconds: float = 0.0
    timeouts: int = 0
    rejected: int = 0
    refused_streams: int = 0
    failures: int = 0
    losses: int = 0
    opened: int = 0
    open_failures: int = 0
    # By the reason, as plain strings, which reasons equal.
    closed: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(map(str, CloseReason), 0))


def slot_stats(slot: Slot, moment: Callable[[float], dt.datetime]) -> ChannelStats:
    """Returns the stats of one slot; `moment` converts the driver's clock to a date."""
    return ChannelStats(
        id=slot.id,
        state=slot.state,
        address=slot.address,
        in_flight=slot.in_flight,
        limit=slot.limit,
        exclusive=slot.exclusive,
        avoided=slot.recent_failures > 0,
        failures=slot.failures,
        created_at=moment(slot.opened_at),
        used_at=moment(slot.used_at),
        calls=slot.calls,
    )


def pool_stats(
    slots: SlotTable,
    counters: Counters,
    sizes: tuple[int, int, int],
    waiting: int,
    moment: Callable[[float], dt.datetime],
    now: float,
    *,
    target: str | None,
) -> PoolStats:
    """Returns the snapshot of a pool; `sizes` are its `min_size`, `max_size` and `target_streams`."""
    # One loop instead of a sum for each figure: a pool may have a thousand connections.
    avoided = idle = in_flight = 0
    acquired = counters.acquired_of_closed
    for slot in slots:
        in_flight += slot.in_flight
        acquired += slot.calls
        if slot.state is SlotState.READY:
            avoided += slot.recent_failures > 0
            idle += slot.in_flight == 0
    return PoolStats(
        size=len(slots),
        ready=slots.ready,
        lost=slots.lost,
        avoided=avoided,
        opening=slots.opening + slots.probing,
        draining=slots.draining,
        idle=idle,
        in_flight=in_flight,
        waiting=waiting,
        min_size=sizes[0],
        max_size=sizes[1],
        target_streams=sizes[2],
        acquired=acquired,
        waited=counters.waited,
        wait_seconds=counters.wait_seconds,
        timeouts=counters.timeouts,
        rejected=counters.rejected,
        refused_streams=counters.refused_streams,
        failures=counters.failures,
        losses=counters.losses,
        opened=counters.opened,
        open_failures=counters.open_failures,
        closed=Counts(counters.closed),
        target=target,
        channels=tuple([slot_stats(slot, moment) for slot in slots]),
        taken_at=moment(now),
    )


def figures_of(slots: SlotTable, *, max_size: int, waiting: int, waited: float = 0.0, asked: str = "") -> Figures:
    """Returns the numbers of an error, for a waiter that asked for `asked` and has `waited` so many seconds."""
    return Figures(
        open=slots.ready + slots.lost,
        lost=slots.lost,
        opening=slots.opening,
        draining=slots.draining,
        max_size=max_size,
        in_flight=sum(slot.in_flight for slot in slots),
        waiting=waiting,
        waited=waited,
        exclusive=sum(slot.exclusive for slot in slots.in_service()),
        asked=asked,
    )
