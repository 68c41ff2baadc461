"""The counters of the machine, and the stats of one slot."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

from .._values.slot_states import CloseReason
from .._values.stats import ChannelStats
from .slot import Slot


@dataclasses.dataclass(slots=True)
class Counters:
    """The counters behind `PoolStats`, which the machine updates. What is acquired is counted by each slot."""

    acquired_of_closed: int = 0
    waited: int = 0
    wait_seconds: float = 0.0
    timeouts: int = 0
    rejected: int = 0
    refused_streams: int = 0
    opened: int = 0
    open_failures: int = 0
    closed: dict[CloseReason, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(CloseReason, 0))


def slot_stats(slot: Slot, moment: Callable[[float], dt.datetime]) -> ChannelStats:
    """Returns the stats of one slot; `moment` converts the driver's clock to a date."""
    return ChannelStats(
        id=slot.id,
        state=slot.state,
        in_flight=slot.in_flight,
        limit=slot.limit,
        exclusive=slot.exclusive,
        created_at=moment(slot.opened_at),
        used_at=moment(slot.used_at),
        calls=slot.calls,
    )
