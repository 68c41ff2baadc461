"""How much the pool adds to the traceback of a failed call."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import grpcpool
from support.call_server import UU, CallServer
from support.loops import in_loop
from support.tracebacks import MOST_TIMES_GRPCS, size_of

pytestmark = pytest.mark.timeout(60)


async def _size(channel: Any) -> tuple[int, int]:
    error: Any
    try:
        await channel.unary_unary(UU)(b"fail")
    except grpc.RpcError as failed:
        error = failed
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    return size_of(error)


@in_loop
async def test_a_failed_call_has_about_the_traceback_of_grpcs_own(calls: CallServer) -> None:
    """The pool, a lease and a handle chain no other error, and add at most half as much again.

    The first call over the pool waits for its place.
    """
    async with calls.aio_channel() as plain:
        frames, lines = await _size(plain)
    pool, handle = grpcpool.aio.ChannelPool(calls.aio_channel), grpcpool.aio.shared_channel(calls.target)
    async with pool, handle:
        for channel in (pool, handle):
            _assert_about(await _size(channel), frames, lines)
        async with pool.acquire(streams=1) as lease:
            _assert_about(await _size(lease), frames, lines)
        assert pool.stats().waited == 1


def _assert_about(size: tuple[int, int], frames: int, lines: int) -> None:
    """The traceback is not longer than permitted."""
    assert size[0] <= MOST_TIMES_GRPCS * frames
    assert size[1] <= MOST_TIMES_GRPCS * lines
