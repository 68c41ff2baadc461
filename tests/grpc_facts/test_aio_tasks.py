"""The tasks that gRPC has for an asyncio call."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from grpcpool._grpc.aio_calls import awaiting_status
from support.aio_ways import KINDS, Way
from support.call_server import CallServer, new_tag
from support.loops import in_loop

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("way", [way for way in KINDS if way.streams_out], ids=str)
@in_loop
async def test_of_a_stream_that_is_cancelled(calls: CallServer, way: Way) -> None:
    """One waits for its status from its first request on, until gRPC has reported that it is cancelled."""
    async with grpc.aio.insecure_channel(calls.target) as channel:
        loop = asyncio.get_running_loop()
        call = way.begin(channel, f"hold:{new_tag()}")
        assert awaiting_status(loop) == []
        await asyncio.sleep(0)
        (task,) = awaiting_status(loop)
        call.cancel()
        await asyncio.wait([task], timeout=10)
        assert awaiting_status(loop) == []
