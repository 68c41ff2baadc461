"""Openings that are due to be given up only because the loop or the process has stood still: they get more time."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from .._machine.slot import Slot
from .._machine.slot_table import SlotTable
from .._values.slot_states import SlotState
from .clock import Clock
from .slot_channel import SlotChannel

# A deadline that is noticed so much later came while the loop or the process stood still.
_STOOD_STILL = 0.1


def openings_to_extend(slots: SlotTable, clock: Clock, now: float) -> Iterator[Slot]:
    """Yields the slots whose opening is due to be given up, and gets more time instead."""
    for slot in slots.in_state(SlotState.OPENING):
        stood_still = clock.late_by(slot.deadline) > _STOOD_STILL
        if slot.deadline <= now and (stood_still or _is_connected(slot.channel)):
            yield slot


def _is_connected(channel: SlotChannel | None) -> bool:
    """Whether the channel of an opening is connected, or had no time to begin, and the pool has not noticed it yet."""
    connected = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE
    return channel is not None and not channel.has_connected and channel.state() in connected
