"""What `advise` concludes from two snapshots."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import ChannelStats, PoolStats, Verdict, advise
from grpcpool._values.slot_states import SlotState
from grpcpool.testing import FakeChannel, FakeFactory, ManualClock
from support.fakes import failing_factory
from support.pools import PoolMaker
from support.servers import ECHO, FAIL, Server, unary
from support.waiting import background, eventually

pytestmark = pytest.mark.timeout(30)

_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_CHANNEL = ChannelStats(
    id=1,
    state=SlotState.READY,
    in_flight=0,
    limit=90,
    exclusive=False,
    created_at=_EPOCH,
    used_at=_EPOCH,
    calls=0,
)
_LIMITED = dataclasses.replace(_CHANNEL, limit=20)
_SICK = dataclasses.replace(_CHANNEL, id=7, address="10.0.0.7:50051", failures=990)
_BEFORE = PoolStats(
    size=4,
    ready=4,
    opening=0,
    draining=0,
    idle=0,
    in_flight=150,
    waiting=0,
    min_size=1,
    max_size=4,
    acquired=1000,
    waited=10,
    wait_seconds=1.0,
    timeouts=0,
    rejected=0,
    refused_streams=0,
    opened=4,
    open_failures=0,
    closed={},
    channels=(_CHANNEL,) * 4,
    taken_at=_EPOCH,
)


def _after(**changes: Any) -> PoolStats:
    """The snapshot 10 s and 10,000 calls later."""
    later: dict[str, Any] = {"acquired": 11_000, "taken_at": _EPOCH + dt.timedelta(seconds=10)}
    return dataclasses.replace(_BEFORE, **(later | changes))


_WHOLE = dataclasses.replace(_CHANNEL, exclusive=True, in_flight=1)

_CASES: dict[str, tuple[dict[str, Any], Verdict, str]] = {
    "at rest": ({"acquired": 1000}, Verdict.NOT_THE_BOTTLENECK, "150 in flight"),
    "busy": ({}, Verdict.NOT_THE_BOTTLENECK, "4 of at most 4 connections carry 150"),
    "one in a hundred waits": ({"waited": 100, "wait_seconds": 1.1}, Verdict.NOT_THE_BOTTLENECK, "0.9 % of the"),
    "many wait": ({"waited": 5010, "wait_seconds": 501.0}, Verdict.TOO_SMALL, "Set max_size to 5 or more"),
    "many wait, with target_streams": (
        {"waited": 5010, "wait_seconds": 501.0, "target_streams": 20},
        Verdict.TOO_SMALL,
        "Set max_size to 10 or more",
    ),
    "many wait, with less room": (
        {"waited": 5010, "wait_seconds": 501.0, "target_streams": 90, "channels": (_LIMITED,) * 4},
        Verdict.TOO_SMALL,
        "Set max_size to 10 or more",
    ),
    "some time out": ({"timeouts": 500}, Verdict.TOO_SMALL, "500 got no place"),
    "a queue": ({"waiting": 400, "in_flight": 360}, Verdict.TOO_SMALL, "Set max_size to 16 or more"),
    "a queue beside a whole connection": (
        {"waiting": 5, "in_flight": 271, "channels": (_WHOLE, *(_CHANNEL,) * 3)},
        Verdict.TOO_SMALL,
        "Set max_size to 7 or more",
    ),
    "a queue for whole connections": (
        {"waiting": 5, "in_flight": 151, "channels": (_WHOLE,) * 151, "size": 151, "max_size": 151},
        Verdict.TOO_SMALL,
        "Set max_size to 156 or more",
    ),
    "room to grow": (
        {"waited": 5010, "wait_seconds": 51.0, "size": 3, "ready": 2, "opening": 1, "opened": 5},
        Verdict.LIMITED_BY_CONNECTING,
        "50.0 % of the callers waited, 10.0 ms on average, although max_size allows more than 2",
    ),
    "room to grow, with all of min_size opened at once": (
        {"waited": 5010, "size": 3, "ready": 3, "min_size": 3},
        Verdict.LIMITED_BY_CONNECTING,
        "Call open() at the start to open them before the load arrives",
    ),
    "many wait while a successor is opened": (
        {"waited": 5010, "wait_seconds": 501.0, "size": 5, "opening": 1},
        Verdict.TOO_SMALL,
        "with all 4 connections open. Set max_size to 5 or more",
    ),
    "more than max_size, in loose mode": ({"max_size": 2}, Verdict.NOT_THE_BOTTLENECK, "and 4 connections carry 150"),
    "cannot connect": (
        {"open_failures": 7, "ready": 0, "timeouts": 3},
        Verdict.LIMITED_BY_CONNECTING,
        "7 attempts to connect failed, 0 connections are ready",
    ),
    "an outage": (
        {"lost": 4, "ready": 0, "losses": 4, "failures": 9000, "open_failures": 3},
        Verdict.CONNECTIONS_LOST,
        "4 connections are down, none is up; connections went down 4 times meanwhile, and 3 attempts to connect failed",
    ),
    "one is down": (
        {"lost": 1, "ready": 3, "losses": 1},
        Verdict.CONNECTIONS_LOST,
        "1 connection is down, 3 connections are up; connections went down once meanwhile. A larger pool does not help",
    ),
    "at rest in an outage": (
        {"acquired": 1000, "in_flight": 0, "lost": 1, "losses": 1},
        Verdict.CONNECTIONS_LOST,
        "1 ",
    ),
    "never up": (
        {"lost": 1, "ready": 0, "open_failures": 7},
        Verdict.LIMITED_BY_CONNECTING,
        "7 attempts to connect failed, 0 connections are ready",
    ),
    "calls fail because nothing was ever up": (
        {"ready": 0, "failures": 9000, "open_failures": 3},
        Verdict.LIMITED_BY_CONNECTING,
        "3 attempts to connect failed, 0 connections are ready. A larger pool does not help",
    ),
    "calls failed before the server could not be reached": (
        {"ready": 0, "failures": 9000, "open_failures": 3, "opened": 5},
        Verdict.SICK_SERVER,
        "3 attempts to connect failed meanwhile.",
    ),
    "many wait for one": (
        {"waited": 5010, "wait_seconds": 501.0, "size": 1, "max_size": 1, "channels": (_CHANNEL,)},
        Verdict.TOO_SMALL,
        "with the only connection open. Set max_size to ",
    ),
    "sick": (
        {"failures": 1000, "avoided": 1, "channels": (_CHANNEL, _SICK)},
        Verdict.SICK_SERVER,
        "and 1 connection is avoided now. The most on one connection are 990, on 7 to 10.0.0.7:50051. A larger pool",
    ),
    "sick, or too small": (
        {"failures": 1000, "waited": 5010, "wait_seconds": 501.0},
        Verdict.SICK_SERVER,
        "50.0 % of the callers waited, 100.0 ms on average: check the servers, the deadlines of the calls, and whether",
    ),
    "all calls of leases fail": ({"failures": 90_000}, Verdict.SICK_SERVER, "100.0 % of the calls (90000) failed"),
    "few fail": (
        {"failures": 100, "avoided": 2},
        Verdict.NOT_THE_BOTTLENECK,
        "100 calls failed as calls do on a sick server; 2 connections are avoided now.",
    ),
    "one was avoided before": (
        {"failures": 0, "avoided": 1},
        Verdict.NOT_THE_BOTTLENECK,
        "1 connection is avoided now, because",
    ),
    "lost and back": ({"losses": 2}, Verdict.NOT_THE_BOTTLENECK, "Connections went down 2 times meanwhile."),
    "lost before": (
        {"losses": 1, "lost": 1, "ready": 3},
        Verdict.CONNECTIONS_LOST,
        "1 connection is down, 3 connections are up; connections went down once meanwhile.",
    ),
    "one failed dial of a full pool": (
        {"open_failures": 1},
        Verdict.NOT_THE_BOTTLENECK,
        "1 attempt to connect failed meanwhile.",
    ),
    "failed dials of a pool that need not grow": (
        {"open_failures": 2, "max_size": 10},
        Verdict.NOT_THE_BOTTLENECK,
        "2 attempts to connect failed meanwhile.",
    ),
    "a failed dial, and at rest later": (
        {"open_failures": 1, "ready": 0, "size": 0, "min_size": 0, "closed": {"idle": 1}, "channels": ()},
        Verdict.NOT_THE_BOTTLENECK,
        "1 attempt to connect failed meanwhile.",
    ),
    "one failed dial, and waiters": (
        {"open_failures": 1, "ready": 1, "waited": 5010, "wait_seconds": 51.0},
        Verdict.LIMITED_BY_CONNECTING,
        "1 attempt to connect failed, 1 connection is ready",
    ),
    "refused": ({"refused_streams": 12}, Verdict.LIMITED_BY_STREAMS, "refused 12 calls"),
    "refused, perhaps to shed load": (
        {"refused_streams": 12},
        Verdict.LIMITED_BY_STREAMS,
        "Or it sheds load, and refuses calls however few there are: then neither helps.",
    ),
    "refused at a limit": (
        {"refused_streams": 12, "channels": (_LIMITED,) * 4},
        Verdict.LIMITED_BY_STREAMS,
        "Its stream limit is below max_streams; connections now carry at most 20. Set max_streams below",
    ),
    "the only call was refused": (
        {"refused_streams": 1, "channels": (dataclasses.replace(_CHANNEL, limit=0),)},
        Verdict.LIMITED_BY_STREAMS,
        "connections now carry at most 0. Set max_streams below",
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_the_verdict(case: str) -> None:
    """For each way in which a pool's size may be wrong, the verdict and its text name it with the figures."""
    changes, verdict, words = _CASES[case]
    advice = advise(_BEFORE, _after(**changes))
    assert advice.verdict is verdict, advice
    assert words in advice.text
    assert str(advice) == f"{verdict}: {advice.text}"


def test_a_pool_that_is_too_large() -> None:
    """Unneeded connections are reported, with the setting that keeps them open."""
    before = dataclasses.replace(_BEFORE, in_flight=20)
    kept = advise(before, _after(in_flight=30, min_size=4))
    assert kept.verdict is Verdict.TOO_LARGE
    assert "Set min_size to 1" in kept.text
    assert "idle_timeout" in advise(before, _after(in_flight=30)).text


def test_a_pool_that_is_too_large_may_have_a_few_waiters() -> None:
    """A few waiters do not change the verdict, but are mentioned."""
    before = dataclasses.replace(_BEFORE, in_flight=20)
    assert "no caller waited" in advise(before, _after(in_flight=30)).text
    few = advise(before, _after(in_flight=30, waited=_BEFORE.waited + 50))
    assert few.verdict is Verdict.TOO_LARGE
    assert "only 0.5 % of the callers waited" in few.text


def test_refusals_take_precedence_over_failures_to_connect() -> None:
    """If both happened, the verdict is the server's stream limit, as the module's table says."""
    both = advise(_BEFORE, _after(refused_streams=1, open_failures=7, ready=0, timeouts=3))
    assert both.verdict is Verdict.LIMITED_BY_STREAMS


def test_losses_of_earlier_times_do_not_decide() -> None:
    """An outage that began before counts; a loss that was over does not, if later a new connection cannot connect."""
    lost_before = dataclasses.replace(_BEFORE, losses=4, lost=4, ready=0)
    still = advise(lost_before, _after(losses=4, lost=4, ready=0))
    assert still.verdict is Verdict.CONNECTIONS_LOST
    assert "4 connections are down, none is up. A larger pool" in still.text
    over = dataclasses.replace(_BEFORE, losses=1)
    assert advise(over, _after(losses=1, lost=1, ready=3, open_failures=1)).verdict is Verdict.NOT_THE_BOTTLENECK


def test_pools_are_not_snapshots(make_pool: PoolMaker) -> None:
    """The error says what to pass."""
    pool: Any = make_pool(FakeFactory())
    for before, after in ((pool, pool.stats()), (pool.stats(), pool)):
        with pytest.raises(TypeError, match=r"pass pool\.stats\(\), not <"):
            advise(before, after)


def test_no_load() -> None:
    """About a pool that has not been used there is nothing to say."""
    idle = dataclasses.replace(_BEFORE, in_flight=0)
    assert advise(idle, idle).verdict is Verdict.NO_LOAD


def test_the_figures_follow_littles_law() -> None:
    """The rate times the time that a place is held is the number in flight; the same holds for the queue."""
    advice = advise(_BEFORE, _after(waited=5010, wait_seconds=501.0))
    assert (advice.seconds, advice.rate, advice.in_flight, advice.in_queue) == (10.0, 1000.0, 150.0, 50.0)
    assert advice.held == pytest.approx(0.15)
    assert advice.mean_wait == pytest.approx(0.1)
    assert advice.needed == 4
    assert "1000.0 per second, each holding its place for 150.0 ms, are 150.0 in flight; 50.0 waiting" in advice.text


def test_without_times_there_is_no_rate() -> None:
    """Snapshots without a time still have a verdict, but no rate."""
    advice = advise(dataclasses.replace(_BEFORE, taken_at=None), _after(timeouts=500))
    assert (advice.verdict, advice.rate, advice.held) == (Verdict.TOO_SMALL, None, None)
    assert "Little" not in advice.text


@pytest.mark.parametrize("changes", [{"acquired": 1}, {"taken_at": _EPOCH - dt.timedelta(seconds=1)}], ids=str)
def test_the_order_matters(changes: dict[str, Any]) -> None:
    """Snapshots in the wrong order, or of two pools, are refused."""
    with pytest.raises(ValueError, match="snapshots"):
        advise(_BEFORE, _after(**changes))


def test_of_a_real_pool_that_is_too_small(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A pool whose calls wait is too small, and a whole lease counts as all the streams of its connection."""
    pool = make_pool(FakeFactory(), max_size=2)
    before = pool.stats()
    leases = [pool.acquire(), pool.acquire()]
    waiting = [background(pool.acquire) for _ in range(3)]
    eventually(lambda: pool.stats().waiting == 3)
    clock.advance(1.0)
    advice = advise(before, pool.stats())
    assert (advice.verdict, advice.needed) == (Verdict.TOO_SMALL, 5)
    for lease in leases:
        lease.release()
    for one in waiting:
        one.result(5).release()


def test_of_a_real_pool_that_cannot_connect(make_pool: PoolMaker) -> None:
    """A pool that cannot connect is limited by connecting."""
    pool = make_pool(failing_factory)
    before = pool.stats()
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(ECHO)(b"")
    assert advise(before, pool.stats()).verdict is Verdict.LIMITED_BY_CONNECTING


def test_of_a_real_pool_with_a_sick_server(server: Server, make_pool: PoolMaker) -> None:
    """If its calls fail, the server is sick."""
    pool = make_pool(server.channel)
    pool.open()
    before = pool.stats()
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, b"INTERNAL")
    eventually(lambda: pool.stats().failures == 3)
    advice = advise(before, pool.stats())
    assert (advice.verdict, advice.failed) == (Verdict.SICK_SERVER, 1.0)
    assert "(3) failed as calls do on a sick server, and 1 connection is avoided now." in advice.text


def test_of_a_real_pool_in_an_outage() -> None:
    """If the server is gone, its connections are lost."""
    with Server() as server, grpcpool.insecure_channel(server.target) as pool:
        pool.open()
        before = pool.stats()
        server.kill()
        eventually(lambda: pool.stats().lost)
        advice = advise(before, pool.stats())
    assert advice.verdict is Verdict.CONNECTIONS_LOST
    assert "1 connection is down, none is up; connections went down once meanwhile" in advice.text


def test_of_a_real_pool_at_work(make_pool: PoolMaker) -> None:
    """A pool whose calls do not wait is not the bottleneck."""
    pool = make_pool(lambda: FakeChannel(holds_calls=True), max_size=1)
    pool.open()
    before = pool.stats()
    calls = [pool.unary_unary(ECHO).future(b"") for _ in range(10)]
    assert advise(before, pool.stats()).verdict is Verdict.NOT_THE_BOTTLENECK
    for call in calls:
        call.cancel()
