"""The state of a pool as a channel, in both worlds."""

from __future__ import annotations

import grpc

from grpcpool._shared.pool_state import pool_state
from grpcpool._values.slot_states import SlotState

State = grpc.ChannelConnectivity


def test_a_connection_that_drains_counts_while_the_pool_is_closed() -> None:
    """It is what is left of the pool in the grace; otherwise it is not in service."""
    draining = [(SlotState.DRAINING, State.READY)]
    assert pool_state([*draining], failing=False) is State.IDLE
    assert pool_state([*draining], failing=False, closing=True) is State.READY
