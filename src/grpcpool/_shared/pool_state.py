"""The state of a whole pool as a channel: ready if any of its connections is."""

from __future__ import annotations

import grpc

from .._values.slot_states import SlotState

_State = grpc.ChannelConnectivity

_UP = (SlotState.READY, SlotState.LOST)
_UP_IN_CLOSING = (*_UP, SlotState.DRAINING)


def pool_state(slots: list[tuple[SlotState, _State | None]], *, failing: bool, closing: bool = False) -> _State:
    """The state of a pool.

    Args:
        slots: State of each slot and of its channel, if it has one.
        failing: Whether the last attempt to open a connection failed.
        closing: Whether the pool is being closed: then the connections of its last calls are what there is of it.
    """
    counts = _UP_IN_CLOSING if closing else _UP
    up = {channel for state, channel in slots if state in counts and channel is not None}
    if _State.READY in up:
        return _State.READY
    if failing or _State.TRANSIENT_FAILURE in up:
        return _State.TRANSIENT_FAILURE
    if _State.CONNECTING in up or any(state is SlotState.OPENING for state, _ in slots):
        return _State.CONNECTING
    return _State.IDLE
