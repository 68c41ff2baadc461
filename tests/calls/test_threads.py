"""Many threads on one pool: the limit on streams of a connection, and the cache of methods."""

from __future__ import annotations

import gc
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool
from support.call_server import UU, CallServer
from support.fakes import FakeChannel, FakeFactory
from support.pools import PoolMaker, assert_at_rest
from support.waiting import together
from support.ways import WAYS

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("max_streams", [1, 7])
def test_no_connection_carries_more_than_it_may(calls: CallServer, make_pool: PoolMaker, max_streams: int) -> None:
    """Under 240 threads with calls of all kinds, the server never sees more than `max_streams` on a connection."""
    pool = make_pool(calls.channel, max_size=4, max_streams=max_streams)
    calls.tell("most")

    def work(i: int) -> list[Any]:
        ways = WAYS[i % 8 :] + WAYS[: i % 8]
        answers = []
        for way in ways[:4]:
            answer = way.finish(way.begin(pool, "work:1", timeout=50))
            answers.append(answer[0] if isinstance(answer, list | tuple) else answer)
        return answers

    assert together(240, work) == [[b"work:1"] * 4] * 240
    most = calls.tell("most")
    assert 1 <= len(most) <= 4
    assert max(most.values()) <= max_streams
    # Otherwise this proves nothing.
    assert sum(most.values()) >= 4
    assert_at_rest(pool)
    stats = pool.stats()
    assert stats.acquired == 960
    assert stats.timeouts == stats.rejected == 0


def test_mixed_ends_of_calls(calls: CallServer, make_pool: PoolMaker) -> None:
    """200 threads that answer, fail, cancel, drop and time out in turn leave nothing behind."""
    pool = make_pool(calls.channel, max_size=3, max_streams=5)

    def work(i: int) -> None:
        for j in range(8):
            way = WAYS[(i + j) % 8]
            match (i + j // 2) % 5:
                case 0:
                    way.finish(way.begin(pool))
                case 1:
                    with pytest.raises(grpc.RpcError):
                        way.finish(way.begin(pool, "fail"))
                case 2 if not way.blocks:
                    way.begin(pool, "ok").cancel()
                case 3 if not way.blocks:
                    way.begin(pool, "ok")
                case _:
                    with pytest.raises(grpc.RpcError):
                        way.finish(way.begin(pool, "hold:nobody", timeout=0.01))

    together(200, work)
    assert_at_rest(pool)
    assert pool.stats().size <= 3
    # Each place is free: as many calls as there are places run at once.
    together(15, lambda _: WAYS[0].begin(pool))


def test_a_pool_that_is_closed_under_load(calls: CallServer, make_pool: PoolMaker) -> None:
    """Every call that `close()` meets ends as gRPC's would: answered, cancelled, or refused as on a closed channel."""
    pool = make_pool(calls.channel, max_size=2, max_streams=3)

    def work(i: int) -> str:
        if i == 0:
            for _ in range(20):
                WAYS[0].begin(pool)
            pool.close()
            return "closed"
        way = WAYS[i % 8]
        try:
            while True:
                way.finish(way.begin(pool))
        except ValueError as error:
            return "refused" if "closed" in str(error).lower() else str(error)
        except grpc.FutureCancelledError:
            return "cancelled"
        except grpc.RpcError as error:
            return "cancelled" if error.code() is grpc.StatusCode.CANCELLED else str(error)

    assert set(together(100, work)) <= {"closed", "refused", "cancelled"}
    gc.collect()
    assert pool.stats().in_flight == pool.stats().size == pool.stats().waiting == 0


# --- the cache of methods -------------------------------------------------------------------------------------------


class _Counting(FakeChannel):
    """Counts how often it is asked for a multicallable."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        self.asked += 1
        return super().unary_unary(*arguments, **named)


def _serialize(message: bytes) -> bytes:
    return message


def _channel_of(pool: ChannelPool) -> Any:
    """The one slot's channel."""
    (slot,) = pool._driver.machine.fleet.slots
    return slot.channel


def test_multicallables_are_made_once(make_pool: PoolMaker) -> None:
    """However often stubs are made from the pool, a connection makes one multicallable for each method."""
    factory = FakeFactory(_Counting)
    pool = make_pool(factory, max_size=1)
    for _ in range(100):
        for method in (UU, "/other/Method"):
            assert pool.unary_unary(method, _serialize, _serialize)(b"a") == b"a"
    (channel,) = factory.made
    assert isinstance(channel, _Counting)
    assert channel.asked == 2


def test_equal_methods_share_one_multicallable(calls: CallServer, make_pool: PoolMaker) -> None:
    """Equal arguments share one multicallable; another serializer, kind or name has another."""
    pool = make_pool(calls.channel, max_size=1)
    pool.open()
    channel, methods = _channel_of(pool), pool._driver.methods

    def made(*arguments: Any) -> int:
        return id(channel.made[methods.get("unary_unary", arguments)])

    same = made(UU, _serialize, None, False)
    assert all(made(UU, _serialize, None, False) == same for _ in range(10))
    others = [made(UU, None, None, False), made("/other/Method", _serialize, None, False)]
    assert len({same, *others}) == 3


def test_the_cache_of_methods_is_bounded(make_pool: PoolMaker) -> None:
    """New serializers for each call work, and the cache stays bounded."""
    pool = make_pool(FakeFactory(), max_size=1)
    for i in range(3000):
        assert pool.unary_unary(UU, lambda message, i=i: message)(b"a") == b"a"  # type: ignore[misc]
    assert len(pool._driver.methods._known) <= 1024
    assert len(_channel_of(pool).made) <= 1024


def test_serializers_that_cannot_be_hashed(make_pool: PoolMaker) -> None:
    """Unhashable serializers work like any other, and the cache stays bounded."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, message: bytes) -> bytes:
            return message

    pool = make_pool(FakeFactory(), max_size=1)
    multicallable = pool.unary_unary(UU, Unhashable())
    for _ in range(2000):
        assert multicallable(b"a") == b"a"
        assert pool.unary_unary(UU, Unhashable())(b"b") == b"b"
    assert len(_channel_of(pool).made) <= 1024
