"""The queue of calls: in order, within deadlines, without losses, cheap."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
import weakref
from typing import Any

import grpc
import pytest

from aio_calls.support import Full, begun, world
from grpcpool import (
    PoolConfig,
    isolated,
)
from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock, aio
from support.aio_pools import at_rest
from support.aio_ways import UNARY, WAYS, Way, outcome_of
from support.call_server import UU, CallServer, new_tag
from support.loops import in_loop, settle, until
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

Code = grpc.StatusCode


def _fake_pool(factory: aio.FakeFactory, **config: Any) -> ChannelPool:
    return ChannelPool(factory, PoolConfig(**{"max_size": 1, "max_streams": 1, **config}), name="fake")


# --- order ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_with_room_a_call_starts_at_once(calls: CallServer) -> None:
    """With a free place, the call is already gRPC's own when the multicallable returns; the queue is not touched."""
    async with world(calls) as at:
        pool = await at.pool(max_streams=len(WAYS))
        for number, way in enumerate(WAYS, start=1):
            way.begin(pool, f"hold:{new_tag()}").add_done_callback(lambda _: None)
            assert (pool.stats().acquired, pool.stats().waiting) == (number, 0)
        await pool.close()


@in_loop
async def test_first_come_first_served(calls: CallServer) -> None:
    """Calls of all kinds start in the order in which they were made."""
    async with world(calls) as at:
        full = await at.full()
        await at.tell("notes")
        made = [(way, way.begin(full.pool, f"note:{i}")) for i, way in enumerate(WAYS * 3)]
        assert full.waiting == 30
        using = [asyncio.create_task(way.use(call, f"note:{i}")) for i, (way, call) in enumerate(made)]
        full.make_room()
        await asyncio.gather(*using)
        assert await at.tell("notes") == [str(i) for i in range(30)]


@in_loop
async def test_a_newcomer_does_not_pass(calls: CallServer) -> None:
    """A call made when a place has just become free is served after the waiters."""
    async with world(calls) as at:
        full = await at.full()
        await at.tell("notes")
        waiting = [UNARY.begin(full.pool, f"note:{i}") for i in range(3)]
        full.make_room()
        newcomer = UNARY.begin(full.pool, "note:newcomer")
        await asyncio.gather(*waiting, newcomer)
        assert await at.tell("notes") == ["0", "1", "2", "newcomer"]


@in_loop
async def test_leases_and_calls_wait_in_one_queue(calls: CallServer) -> None:
    """Leases of one stream and calls are served in the order in which they came."""
    async with world(calls) as at:
        full = await at.full()
        await at.tell("notes")

        async def lease(name: str) -> None:
            async with full.pool.acquire(streams=1) as lease:
                await UNARY.whole(lease, f"note:{name}")

        work = await begun(
            UNARY.whole(full.pool, "note:a"),
            lease("b"),
            UNARY.whole(full.pool, "note:c"),
            lease("d"),
            UNARY.whole(full.pool, "note:e"),
        )
        full.make_room()
        await asyncio.gather(*work)
        assert await at.tell("notes") == ["a", "b", "c", "d", "e"]


@in_loop
async def test_a_new_connection_serves_waiters(calls: CallServer) -> None:
    """If the pool may grow, a connection is opened for the waiters, which need not wait for the running call."""
    async with world(calls) as at:
        pool = await at.pool(max_size=3)
        blocker = UNARY.begin(pool, f"hold:{new_tag()}")
        assert [await UNARY.whole(pool) for _ in range(3)] == [b"0"] * 3
        assert pool.stats().size >= 2
        assert not blocker.done()
        blocker.cancel()


# --- ten thousand ---------------------------------------------------------------------------------------------------


@in_loop
async def test_ten_thousand_queued_calls() -> None:
    """No call is lost, all start in order, and never more run at once than there are places."""
    served: list[bytes] = []
    in_flight: set[int] = set()

    def handler(request: bytes) -> bytes:
        served.append(request)
        in_flight.add(pool.stats().in_flight)
        return request

    pool = _fake_pool(aio.FakeFactory(lambda: aio.FakeChannel({UU: handler})), max_streams=50, max_waiters=None)
    async with pool:
        requests = [b"%d" % i for i in range(10_000)]
        multicallable: Any = pool.unary_unary(UU)
        made = [multicallable(request) for request in requests]
        assert pool.stats().waiting == 10_000
        assert await asyncio.gather(*made) == requests
        assert served == requests
        assert max(in_flight) == 50
        await at_rest(pool)
        assert (pool.stats().acquired, pool.stats().waited) == (10_000, 10_000)


@in_loop
async def test_three_thousand_queued_calls_on_a_server(calls: CallServer) -> None:
    """Over two real connections all calls are answered, none with another call's answer."""
    async with world(calls) as at:
        pool = await at.pool(max_size=2, max_streams=20, max_waiters=None)
        requests = [f"echo {i}" for i in range(3000)]
        made = [UNARY.begin(pool, request, timeout=60) for request in requests]
        assert await asyncio.gather(*made) == [request.encode() for request in requests]
        await at_rest(pool)
        assert pool.stats().acquired == 3000


@in_loop
async def test_what_a_queued_call_costs() -> None:
    """A queued call costs less than 5 KB, and is freed when it has ended, without help of the collector."""
    number = 3000
    channel = aio.FakeChannel(holds_calls=True)
    pool = _fake_pool(aio.FakeFactory(lambda: channel), max_waiters=None)
    async with pool:
        await pool.open()
        multicallable: Any = pool.unary_unary(UU)
        blocker = multicallable(b"")
        requests = [b"%d" % i for i in range(number)]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            made = [multicallable(request, timeout=LONG) for request in requests]
            queued, _ = tracemalloc.get_traced_memory()
            assert pool.stats().waiting == number
            assert 0 < (queued - before) / number < 5_000
            left = weakref.WeakSet(made)
            while made:
                made.pop().cancel()
            await until(lambda: pool.stats().waiting == 0)
            assert len(left) == 0
        finally:
            tracemalloc.stop()
            gc.enable()
        blocker.cancel()
        await at_rest(pool)


@in_loop
async def test_thousands_dropped_or_cancelled(calls: CallServer) -> None:
    """Calls that are dropped or cancelled leave the queue; a place that becomes free meanwhile is not lost."""
    async with world(calls) as at:
        full = await at.full(max_waiters=None)
        dice = random.Random(7)  # noqa: S311 -- a test's
        for how in ("drop", "cancel", "both"):
            made = [UNARY.begin(full.pool, timeout=60) for _ in range(3000)]
            last = UNARY.begin(full.pool, timeout=60)
            dice.shuffle(made)
            for call in made:
                if how == "cancel" or (how == "both" and dice.random() < 0.5):
                    call.cancel()
            del call
            made.clear()
            # In the same turn of the loop, before the dropped calls have left.
            full.make_room()
            assert await last == b"0"
            await at_rest(full.pool)
            full = await Full.of(full.pool)
        full.make_room()
        await at_rest(full.pool)


@in_loop
async def test_thousands_that_cannot_start(calls: CallServer) -> None:
    """Each call fails with its own error, and the place goes to the next."""
    async with world(calls) as at:
        pool = ChannelPool(
            lambda: grpc.aio.insecure_channel(calls.target, isolated()),
            PoolConfig(max_size=1, max_streams=1, max_waiters=None),
        )
        at.enter(pool)
        await pool.open()
        full = await Full.of(pool)
        wrong: Any = 5
        with pytest.raises(Exception) as caught:  # noqa: PT011 -- it is for gRPC to say
            UNARY.begin(at.plain, credentials=wrong)
        made = [UNARY.begin(full.pool, credentials=wrong) for _ in range(2000)]
        last = UNARY.begin(full.pool)
        full.make_room()
        outcomes = {await outcome_of(call) for call in made}
        assert outcomes == {(type(caught.value), str(caught.value))}
        assert await last == b"0"
        await at_rest(pool)


@in_loop
async def test_calls_that_race_with_their_cancel(calls: CallServer) -> None:
    """Calls cancelled while they are being started release their places, and end one way or the other."""
    async with world(calls) as at:
        pool = await at.pool(max_streams=3)
        dice = random.Random(11)  # noqa: S311 -- a test's
        # GRPC's own `write` waits for ever if the call is cancelled just when it begins.
        for way in (way for way in WAYS if not way.writes):
            made = [way.begin(pool) for _ in range(60)]
            tasks = [asyncio.create_task(outcome_of(way.use(call))) for call in made]
            for call in dice.sample(made, 40):
                await settle(dice.randrange(3))
                call.cancel()
            outcomes = await asyncio.gather(*tasks)
            assert {outcome[0] for outcome in outcomes} <= {"answer", "cancelled", asyncio.InvalidStateError}
            assert sum(outcome[0] == "answer" for outcome in outcomes) >= 20
            assert all(call.done() for call in made)
            del made, call
            await at_rest(pool)


# --- deadlines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_the_deadline_includes_the_wait(calls: CallServer, way: Way) -> None:
    """The server sees a deadline reduced by the wait."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool, "left", timeout=30)
        using = asyncio.create_task(way.use(call, "left"))
        await asyncio.sleep(0.15)
        assert call.time_remaining() < 29.9
        full.make_room()
        answer = await using
        assert 20 < float(answer[0] if way.streams_out else answer) < 29.9


@in_loop
async def test_a_deadline_of_nan_has_passed(calls: CallServer) -> None:
    """As in gRPC, NaN is a deadline that has passed; later waiters still time out in time."""
    async with world(calls) as at:
        full = await at.full()
        odd, short = UNARY.begin(full.pool, timeout=float("nan")), UNARY.begin(full.pool, timeout=0.05)
        assert await short.code() is Code.DEADLINE_EXCEEDED
        assert await odd.code() is Code.DEADLINE_EXCEEDED
        assert await UNARY.begin(at.plain, timeout=float("nan")).code() is Code.DEADLINE_EXCEEDED


@in_loop
async def test_the_wait_is_measured_exactly(clock: ManualClock) -> None:
    """A call waits exactly until its own deadline; one that gets its place has the rest of its time."""
    channel = aio.FakeChannel(holds_calls=True)
    pool = _fake_pool(aio.FakeFactory(lambda: channel), acquire_timeout=1.0)
    async with pool:
        await pool.open()
        multicallable: Any = pool.unary_unary(UU)
        blocker = multicallable(b"")
        short, long, none = (multicallable(b"", timeout=timeout) for timeout in (5.0, 60.0, None))
        assert [short.time_remaining(), long.time_remaining(), none.time_remaining()] == [5.0, 60.0, None]
        clock.advance(0.999)
        assert not none.done()
        clock.advance(0.001)
        assert await none.code() is Code.RESOURCE_EXHAUSTED
        clock.advance(3.999)
        assert not short.done()
        assert short.time_remaining() == pytest.approx(0.001)
        clock.advance(0.001)
        assert await short.code() is Code.DEADLINE_EXCEEDED
        clock.advance(20.0)
        blocker.cancel()
        left = channel.calls[-1].time_remaining()
        assert left is not None
        assert 34 < left <= 35
        long.cancel()
        assert pool.stats().timeouts == 2


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_deadline_that_has_passed(
    calls: CallServer,
    way: Way,
    timeout: float,  # noqa: ASYNC109 -- of the call
) -> None:
    """A call whose deadline has passed fails `DEADLINE_EXCEEDED`, and never queues."""
    async with world(calls) as at:
        full = await at.full()
        outcome = await outcome_of(way.take(way.begin(full.pool, timeout=timeout)))
        assert outcome == ("error", Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert full.waiting == 0


@in_loop
async def test_the_configured_wait_may_have_no_end(clock: ManualClock) -> None:
    """With `acquire_timeout=None` a call without a deadline waits until there is a place."""
    channel = aio.FakeChannel(holds_calls=True)
    async with _fake_pool(aio.FakeFactory(lambda: channel), acquire_timeout=None) as pool:
        await pool.open()
        multicallable: Any = pool.unary_unary(UU)
        blocker, call = multicallable(b""), multicallable(b"")
        clock.advance(1e9)
        assert not call.done()
        blocker.cancel()
        channel.calls[-1].finish([b"answer"])
        assert await call == b"answer"
