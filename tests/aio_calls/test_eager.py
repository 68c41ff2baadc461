"""Interceptors of pools in every kind of loop: with eager tasks they run while the call is being made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aio_calls.support import world
from aio_calls.support_interceptors import POOLS, Place, intercepted, passes
from grpcpool._grpc import interceptor_chain
from grpcpool._grpc.own_chain import OWN_CHAINS
from grpcpool.aio import ChannelPool, Lease
from support.aio_pools import at_rest
from support.aio_ways import WAYS, Way
from support.call_server import CallServer
from support.loops import in_loop, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


@pytest.fixture(params=["gRPC's", "own"])
def _chains(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interceptors are run by gRPC's classes, or by the pool's own."""
    if request.param == "own":
        monkeypatch.setattr(interceptor_chain, "_chains", lambda: OWN_CHAINS)


async def _used_by_two_tasks(way: Way, channel: Any, pool: ChannelPool, taken: Lease | None) -> Any:
    """One task sends, and one takes the answer, of a call that waits until the lease is released, if there is one."""
    call = way.begin(channel)
    async with asyncio.TaskGroup() as group:
        group.create_task(way.send(call))
        taking = group.create_task(way.take(call))
        if taken is not None:
            await until(lambda: pool.stats().waiting == 1)
            taken.release()
    return taking.result()


@pytest.mark.usefixtures("_chains")
@pytest.mark.parametrize("over", ["pool", "lease"])
@pytest.mark.parametrize("place", POOLS)
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_calls_of_every_kind(calls: CallServer, way: Way, place: Place, over: str) -> None:
    """They are made with and without a wait, and get their answers; so do those to which another task writes."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        lease = await pool.acquire() if over == "lease" else None
        channel: Any = lease or pool
        answer = await way.whole(at.plain)
        for wait in (False, False, True):
            taken = await pool.acquire() if wait and lease is None else None
            assert await _used_by_two_tasks(way, channel, pool, taken) == answer
        if lease is not None:
            lease.release()
        await at_rest(pool)
