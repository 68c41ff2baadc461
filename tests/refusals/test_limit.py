"""A refusal beside other calls lowers the connection's limit to what these are; the limit recovers slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool
from grpcpool._grpc.status import is_refused_stream
from grpcpool.events import Avoided, RefusedStream
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_calls import STEP, assert_refused
from refusals.test_waiting_again import ONE_REQUEST
from support.pools import Recorder, assert_at_rest
from support.refusing_counts import Count
from support.refusing_server import RefusingServer
from support.waiting import background, eventually
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(60)

FUTURE = next(way for way in WAYS if way.how == "future" and not way.streams_in)


def limits(pool: ChannelPool) -> list[int]:
    """The limits of the connections, the lowest first."""
    return sorted(channel.limit for channel in pool.stats().channels)


def loads(pool: ChannelPool) -> list[int]:
    """The calls on each connection, the least first; none above its limit."""
    channels = pool.stats().channels
    assert all(0 <= channel.in_flight <= channel.limit for channel in channels)
    return sorted(channel.in_flight for channel in channels)


def hold(refusing: RefusingServer, pool: ChannelPool, *tags: str) -> list[Any]:
    """Calls that the server has begun to handle, and that run until they are let go."""
    calls = [FUTURE.begin(pool, f"hold:{tag}", timeout=60) for tag in tags]
    eventually(lambda: set(tags) <= set(refusing.report().held))
    return calls


@pytest.fixture
def one(open_pool: PoolOpener, clock: ManualClock) -> ChannelPool:
    """A pool of one connection for at most 10 calls; the clock stands still."""
    return open_pool(max_size=1, max_streams=10)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_it_is_lowered_to_the_calls_in_flight(
    refusing: RefusingServer, one: ChannelPool, recorder: Recorder, way: Way
) -> None:
    """The refused call waits until one that was not refused has ended, and takes its place."""
    refusing.begin(open=3)
    held = hold(refusing, one, "a", "b", "c")
    outcome = background(lambda: way.finish(way.begin(one)))
    eventually(lambda: one.stats().waiting == 1)
    assert_refused(one, recorder, 1)
    (told,) = recorder.of(RefusedStream)
    (channel,) = one.stats().channels
    assert (told.channel, told.limit) == (channel.id, 3)
    assert (channel.limit, channel.in_flight) == (3, 3)
    refusing.let_go("b")
    assert outcome.result(20)
    assert loads(one) == [2]
    for tag in "ac":
        refusing.let_go(tag)
    assert [call.result(20) for call in held] == [b"1"] * 3
    assert_at_rest(one)
    assert_refused(one, recorder, 1)
    assert refusing.report().handled == {"hold:a": 1, "hold:b": 1, "hold:c": 1, "ok": 1}


def test_each_refusal_lowers_it_by_one(refusing: RefusingServer, one: ChannelPool, recorder: Recorder) -> None:
    """When a server refuses seven of ten simultaneous calls, the limit is three, and no call is refused twice."""
    refusing.begin(open=3, held=True)
    calls = [FUTURE.begin(one, f"hold:{tag}") for tag in "abcdefghij"]
    eventually(lambda: refusing.report().all.begun == 10)
    refusing.let_go("refusals")
    eventually(lambda: one.stats().refused_streams == 7)
    assert sorted((event.limit for event in recorder.of(RefusedStream)), reverse=True) == [9, 8, 7, 6, 5, 4, 3]
    eventually(lambda: one.stats().waiting == 7)
    assert (limits(one), loads(one)) == ([3], [3])
    for tag in "abcdefghij":
        refusing.let_go(tag)
    assert [call.result(20) for call in calls] == [b"1"] * 10
    assert_at_rest(one)
    assert_refused(one, recorder, 7)
    told = refusing.report()
    assert (told.all.most, told.all.begun) == (3, 17)
    assert set(told.handled.values()) == {1}


def test_refusals_that_arrive_late(refusing: RefusingServer, one: ChannelPool, clock: ManualClock) -> None:
    """Refusals of simultaneous calls lower the limit to the server's, however far apart they arrive."""
    refusing.begin(open=3, held=True)
    calls = [FUTURE.begin(one, f"hold:{tag}") for tag in "abcdefghij"]
    eventually(lambda: refusing.report().all.begun == 10)
    for number in range(1, 8):
        clock.advance(0.025)
        refusing.let_go(f"refusal:{number}")
        eventually(lambda: one.stats().refused_streams == number)  # noqa: B023 -- at once
        eventually(lambda: one.stats().waiting == number)  # noqa: B023 -- at once
        assert (limits(one), loads(one)) == ([10 - number], [10 - number])
    refusing.refuse(open=3)
    for tag in "abcdefghij":
        refusing.let_go(tag)
    assert [call.result(20) for call in calls] == [b"1"] * 10
    assert_at_rest(one)
    assert refusing.report().all.refused == 7


def test_a_server_that_refuses_everything(
    refusing: RefusingServer, one: ChannelPool, recorder: Recorder, clock: ManualClock
) -> None:
    """Simultaneous calls lower the limit to one, and each is sent six times; it fails with the server's words."""
    refusing.begin(open=0, held=True)
    calls = [FUTURE.begin(one) for _ in range(5)]
    eventually(lambda: refusing.report().all.begun == 5)
    refusing.let_go("refusals")
    errors = [call.exception(20) for call in calls]
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert all(is_refused_stream(error) for error in errors)
    assert_at_rest(one)
    assert limits(one) == [1]
    assert_refused(one, recorder, 5 * 6)
    assert refusing.report().all == Count(begun=5 * 6, refused=5 * 6)
    # Its recovery is noticed by the next call.
    refusing.begin()
    assert FUTURE.begin(one).result(20) == b"0"
    assert_at_rest(one)


@pytest.mark.parametrize(("most", "step"), [(10, 1), (20, 1), (40, 2), (90, 4)])
def test_it_recovers_in_steps(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, most: int, step: int
) -> None:
    """Each half second a limit grows by a twentieth of `max_streams`, at least by one, up to its old value."""
    pool = open_pool(max_size=1, max_streams=most)
    with pool.acquire(streams=1):
        refusing.begin(next=1)
        call = FUTURE.begin(pool)
        eventually(lambda: limits(pool) == [1])
        expected = 1
        while expected < most:
            clock.advance(STEP - 0.01)
            assert limits(pool) == [expected]
            clock.advance(0.01)
            expected = min(most, expected + step)
            assert limits(pool) == [expected]
        clock.advance(10 * STEP)
        assert limits(pool) == [most]
        assert call.result(20) == b"0"


def test_a_limit_above_the_servers_is_lowered_again(
    refusing: RefusingServer, one: ChannelPool, recorder: Recorder, clock: ManualClock
) -> None:
    """A limit that has grown beyond the server's is lowered again, and the refused call keeps waiting."""
    refusing.begin(open=2)
    held = hold(refusing, one, "a", "b")
    waiting = [FUTURE.begin(one, text) for text in ("first", "second")]
    eventually(lambda: one.stats().waiting == 2)
    assert limits(one) == [2]
    refused = one.stats().refused_streams
    clock.advance(STEP)
    eventually(lambda: one.stats().refused_streams == refused + 1)
    eventually(lambda: one.stats().waiting == 2)
    assert (limits(one), loads(one)) == ([2], [2])
    for tag in "ab":
        refusing.let_go(tag)
    assert [call.result(20) for call in (*waiting, *held)] == [b"first", b"second", b"1", b"1"]
    assert_at_rest(one)
    assert_refused(one, recorder, refused + 1)


def test_it_recovers_by_itself(refusing: RefusingServer, open_pool: PoolOpener, recorder: Recorder) -> None:
    """With the system's clock, and without any call, the limit recovers within seconds."""
    pool = open_pool(max_size=1, max_streams=3)
    with pool.acquire(streams=1):
        refusing.begin(next=1)
        assert FUTURE.begin(pool).result(20) == b"0"
    # By now it may have recovered a step or two.
    assert [event.limit for event in recorder.of(RefusedStream)] == [1]
    eventually(lambda: limits(pool) == [3], timeout=10)


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
def test_others_serve_meanwhile(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, picker: str
) -> None:
    """Calls go to the connections that have refused none, whose limits are unchanged."""
    pool = open_pool(min_size=2, max_size=2, max_streams=7, picker=picker)
    # One on each connection.
    with pool.acquire(streams=4), pool.acquire(streams=4):
        refusing.begin(next=1)
        assert FUTURE.begin(pool).result(20) == b"0"
        assert limits(pool) == [4, 7]
        held = hold(refusing, pool, "a", "b", "c")
        assert loads(pool) == [4, 7]
        for tag in "abc":
            refusing.let_go(tag)
        assert [call.result(20) for call in held] == [b"1"] * 3
        assert sorted(count.most for count in refusing.report().counts.values()) == [0, 3]
    assert_at_rest(pool)


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
def test_others_come_first_after_a_lone_refusal(
    refusing: RefusingServer, open_pool: PoolOpener, recorder: Recorder, clock: ManualClock, picker: str
) -> None:
    """A connection that refused a call while it carried nothing else keeps its limit; others are used first."""
    pool = open_pool(min_size=2, max_size=2, max_streams=4, picker=picker)
    refusing.begin(next=1)
    assert FUTURE.begin(pool).result(20) == b"0"
    assert limits(pool) == [4, 4]
    (avoided,) = recorder.of(Avoided)
    assert avoided.code is None
    held = hold(refusing, pool, "a", "b", "c", "d")
    assert loads(pool) == [0, 4]
    held += hold(refusing, pool, "e")
    assert loads(pool) == [1, 4]
    for tag in "abcde":
        refusing.let_go(tag)
    assert [call.result(20) for call in held] == [b"1"] * 5
    assert sorted(count.most for count in refusing.report().counts.values()) == [1, 4]
    assert_at_rest(pool)
    assert_refused(pool, recorder, 1)


def test_the_pool_grows_if_it_may(
    refusing: RefusingServer, open_pool: PoolOpener, recorder: Recorder, clock: ManualClock
) -> None:
    """For a refused call another connection is opened, up to `max_size`; then the call waits."""
    pool = open_pool(max_size=3, max_streams=8)
    refusing.begin(open=1)
    held = []
    for number, tag in enumerate("abc", start=1):
        held += hold(refusing, pool, tag)
        assert pool.stats().size == number
    assert loads(pool) == [1, 1, 1]
    waiting = FUTURE.begin(pool)
    eventually(lambda: limits(pool) == [1, 1, 1])
    eventually(lambda: pool.stats().waiting == 1)
    # A new connection carries no more than the others could bear, so that it need not refuse a call.
    assert_refused(pool, recorder, 1)
    refusing.let_go("c")
    assert waiting.result(20) == b"0"
    for tag in "ab":
        refusing.let_go(tag)
    assert [call.result(20) for call in held] == [b"1"] * 3
    assert_at_rest(pool)
    assert_refused(pool, recorder, 1)
    assert set(refusing.report().handled.values()) == {1}


def test_leases_count_for_what_they_hold(refusing: RefusingServer, one: ChannelPool, clock: ManualClock) -> None:
    """A limit is lowered to all that is in flight, leases included; and a lease waits for it as a call does."""
    with one.acquire(streams=4):
        refusing.begin(next=1)
        call = FUTURE.begin(one)
        eventually(lambda: one.stats().waiting == 1)
        assert (limits(one), loads(one)) == ([4], [4])
        clock.advance(STEP)
        assert call.result(20) == b"0"
        lease = background(lambda: one.acquire(streams=2))
        eventually(lambda: one.stats().waiting == 1)
        clock.advance(STEP)
        lease.result(20).release()
    assert_at_rest(one)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("ask", [None, 1, 10], ids=["whole", "one stream", "all streams"])
def test_a_connection_that_refused_a_lone_call_can_be_leased(
    refusing: RefusingServer, one: ChannelPool, clock: ManualClock, ask: int | None
) -> None:
    """A connection that refused a lone call keeps its limit: it can be leased at once, while that call pauses."""
    refusing.begin(next=1)
    call = FUTURE.begin(one)
    eventually(lambda: one.stats().waiting == 1)
    assert limits(one) == [10]
    with one.acquire(streams=ask, timeout=0):
        assert one.stats().waiting == 1
        clock.advance(STEP)
        if ask == 1:
            assert call.result(20) == b"0"
    assert call.result(20) == b"0"
    assert_at_rest(one)


@pytest.mark.parametrize("ask", [None, 2], ids=["whole", "two streams"])
def test_a_lowered_limit_bounds_leases(
    refusing: RefusingServer, one: ChannelPool, clock: ManualClock, ask: int | None
) -> None:
    """Leases of streams wait until a lowered limit has grown; a whole connection is leased whatever its limit."""
    with one.acquire(streams=1):
        refusing.begin(next=1)
        call = FUTURE.begin(one)
        eventually(lambda: one.stats().waiting == 1)
        call.cancel()
        assert limits(one) == [1]
        lease = background(lambda: one.acquire(streams=ask))
        eventually(lambda: one.stats().waiting == 1)
    if ask is not None:
        assert not lease.done()
        clock.advance(STEP)
    lease.result(20).release()
    assert_at_rest(one)


def test_refused_calls_are_served_in_order(refusing: RefusingServer, one: ChannelPool, clock: ManualClock) -> None:
    """Refused calls are served in the order in which they first came."""
    refusing.begin(open=1)
    order: list[str] = []

    def note(tag: str) -> Callable[[Any], None]:
        return lambda call: order.append(tag)

    held = hold(refusing, one, "a")
    for tag in "bcd":
        call = FUTURE.begin(one, f"hold:{tag}")
        call.add_done_callback(note(tag))
        held.append(call)
        eventually(lambda: one.stats().waiting == len(held) - 1)
    for tag in "abcd":
        refusing.let_go(tag)
    eventually(lambda: len(order) == 3)
    assert order == ["b", "c", "d"]
    assert [call.code() for call in held] == [grpc.StatusCode.OK] * 4
    assert_at_rest(one)
