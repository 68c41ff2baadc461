"""What callers are told when there is no server, or no pool any more."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import grpcpool
from calls.support_server import UU, WAYS, CallServer, Way, assert_at_rest, new_tag, outcome_of
from grpcpool import ChannelPool, PoolClosedError, PoolOpenError, PoolTimeoutError
from support.pools import PoolMaker
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def dead() -> Iterator[str]:
    """A target at which nobody listens: the port is taken, so that nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def _error(work: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return caught.value


# --- nobody is there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_dead_target_is_unavailable(dead: str, way: Way) -> None:
    """A call fails long before its deadline, with gRPC's own words and the connect error as the pool's cause."""
    with grpc.insecure_channel(dead) as plain:
        expected = _error(lambda: way.finish(way.begin(plain, timeout=5)))
    with grpcpool.insecure_channel(dead) as pool:
        error = _error(lambda: way.finish(way.begin(pool, timeout=LONG)))
        assert error.code() is expected.code() is grpc.StatusCode.UNAVAILABLE
        assert "Connection refused" in expected.details()
        assert "Connection refused" in error.details()
        assert dead in error.details()
        assert isinstance(error.__cause__, PoolOpenError)
        assert isinstance(error.__cause__.__cause__, grpc.RpcError)
        assert pool.stats().in_flight == pool.stats().waiting == 0


def test_a_dead_target_stays_unavailable(dead: str) -> None:
    """The next calls fail at once, although the pool pauses between its attempts to connect."""
    with grpcpool.insecure_channel(dead) as pool:
        for _ in range(200):
            error = _error(lambda: WAYS[0].begin(pool, timeout=LONG))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert pool.stats().open_failures < 50
        assert pool.stats().size <= 10


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_who_waits_for_ready_waits_for_the_server(way: Way) -> None:
    """A call with `wait_for_ready` does not fail while nobody is there; it runs when the server has come up."""
    server = CallServer()
    with server:
        pass
    with ChannelPool(server.channel) as pool:
        waiting = background(lambda: way.finish(way.begin(pool, wait_for_ready=True, timeout=LONG)))
        eventually(lambda: pool.stats().open_failures >= 1)
        assert not waiting.done()
        with server:
            assert waiting.result(LONG) is not None
            assert_at_rest(pool)
            pool.close()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_who_waits_for_ready_waits_to_his_deadline(dead: str, way: Way) -> None:
    """If nobody comes the call fails `DEADLINE_EXCEEDED`, as gRPC's does; the cause tells why nobody could."""
    with grpcpool.insecure_channel(dead) as pool:
        error = _error(lambda: way.finish(way.begin(pool, wait_for_ready=True, timeout=0.3)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert isinstance(error.__cause__, PoolTimeoutError)
        assert "Connection refused" in str(error.__cause__)


def test_a_name_that_does_not_resolve() -> None:
    """The call fails `UNAVAILABLE` with gRPC's words for it."""
    with grpcpool.insecure_channel("nobody.invalid:1") as pool:
        error = _error(lambda: WAYS[0].begin(pool, timeout=LONG))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "nobody.invalid" in error.details() or "resol" in error.details()


# --- after the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_after_the_close(calls: CallServer, make_pool: PoolMaker, way: Way, used: bool) -> None:
    """A call on a closed pool raises at once what one on a closed channel raises: the same type, the same text."""
    raised = []
    for channel in (calls.channel(), make_pool(calls.channel)):
        if used:
            way.finish(way.begin(channel))
        channel.close()
        with pytest.raises(ValueError, match="closed") as caught:
            way.begin(channel)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_multicallables_outlive_the_close(calls: CallServer, make_pool: PoolMaker, way: Way) -> None:
    """One made before the close raises the same as one made after it; neither making raises."""
    raised = []
    for channel in (calls.channel(), make_pool(calls.channel)):
        before: Any = getattr(channel, way.maker)(way.method)
        channel.close()
        after: Any = getattr(channel, way.maker)(way.method)
        for multicallable in (before, after):
            with pytest.raises(ValueError, match="closed") as caught:
                getattr(multicallable, way.how)(iter([b"ok"]) if way.streams_in else b"ok")
            raised.append(str(caught.value))
    assert len(set(raised)) == 1


def test_a_call_during_the_grace_is_refused(calls: CallServer, make_pool: PoolMaker) -> None:
    """While `close(grace)` waits for the calls in flight, a new one is refused as after the close."""
    pool = make_pool(calls.channel, max_streams=1)
    running = WAYS[2].begin(pool, f"hold:{new_tag()}")
    eventually(lambda: pool.stats().in_flight == 1)
    closing = background(lambda: pool.close(grace=LONG))
    eventually(lambda: pool.closed)
    for way in WAYS:
        with pytest.raises(ValueError, match="closed"):
            way.begin(pool)
    assert running.is_active()
    running.cancel()
    closing.result(LONG)


def test_a_close_with_grace_leaves_nothing(calls: CallServer) -> None:
    """When the last call has ended within the grace, `close()` returns, and no thread waits for the grace to pass."""
    pool = ChannelPool(calls.channel, name="graceful")
    pool.open()
    running = WAYS[2].begin(pool, f"hold:{new_tag()}")
    closing = background(lambda: pool.close(grace=3600))
    eventually(lambda: pool.closed)
    running.cancel()
    closing.result(LONG)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("grpcpool-graceful")]
    # Has the thread end, lest it is found by other tests as well.
    pool.close(grace=0)
    assert left == []


def test_close_is_idempotent_as_grpcs(calls: CallServer, plain: grpc.Channel, make_pool: PoolMaker) -> None:
    """Both may be closed again and again, also by leaving a `with` block."""
    for channel in (plain, make_pool(calls.channel)):
        with channel as entered:
            assert entered is channel
            assert outcome_of(lambda channel=channel: WAYS[0].begin(channel))[0] == "answer"  # type: ignore[misc]
            channel.close()
        channel.close()


# --- the text -------------------------------------------------------------------------------------------------------


def test_the_text_of_an_error(dead: str) -> None:
    """`str()` of an error that the pool made has the form of gRPC's own: status, details, and what lies behind."""
    with grpc.insecure_channel(dead) as plain:
        native = str(_error(lambda: WAYS[0].begin(plain, timeout=5)))
    with grpcpool.insecure_channel(dead, name="orders") as pool:
        error = _error(lambda: WAYS[0].begin(pool, timeout=5))
    lines, expected = str(error).splitlines(), native.splitlines()
    assert [line.split("=")[0] for line in lines[1:]] == [line.split("=")[0] for line in expected[1:]]
    assert lines[0] == "<CallNotStartedError of RPC that terminated with:"
    assert expected[0].endswith(" of RPC that terminated with:")
    assert lines[1] == expected[1]
    assert error.details() in lines[2]
    assert "pool 'orders'" in lines[3]
    assert repr(error) == str(error)
    assert error.debug_error_string() == str(error.__cause__)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]], ids=str)
def test_what_a_refusal_says(calls: CallServer, make_pool: PoolMaker, way: Way) -> None:
    """The details of a refusal name the pool, the numbers and the remedy; they are those of the pool's error."""
    pool = make_pool(calls.channel, name="orders", max_size=1, max_streams=1, acquire_timeout=0.05)
    pool.open()
    with pool.acquire():
        error = _error(lambda: way.finish(way.begin(pool, timeout=None)))
    assert isinstance(error.__cause__, PoolTimeoutError)
    assert error.details() == str(error.__cause__)
    assert error.details().startswith(
        "pool 'orders': timed out waiting for a place (1 of 1 connections open, 1 in flight"
    )
    assert "raise max_size or max_streams" in error.details()


def test_an_error_is_a_call_and_a_future(dead: str) -> None:
    """Code that treats an error as the call it was, as with gRPC's own, finds everything there."""
    with grpcpool.insecure_channel(dead) as pool:
        error = _error(lambda: WAYS[0].begin(pool, timeout=5))
    assert error.exception() is error
    assert error.traceback() is error.__traceback__
    assert {grpc.RpcError, grpc.Call, grpc.Future} <= set(type(error).__mro__)
    assert (error.is_active(), error.running(), error.done(), error.cancelled()) == (False, False, True, False)
    assert error.time_remaining() is None
    assert error.initial_metadata() == error.trailing_metadata() == ()
    assert not error.cancel()
    assert not error.add_callback(list)
    told: list[Any] = []
    error.add_done_callback(told.append)
    assert told == [error]
    with pytest.raises(grpc.RpcError):
        error.result()


def test_an_error_is_caught_as_grpcs_own_is(dead: str) -> None:
    """Many programs name gRPC's private class where they catch what a blocking call raises."""
    with grpcpool.insecure_channel(dead) as pool, grpc.insecure_channel(dead) as channel:
        ours, grpcs = (_error(lambda one=one: WAYS[0].begin(one, timeout=5)) for one in (pool, channel))
    assert type(grpcs).__name__ == "_InactiveRpcError"
    assert isinstance(ours, type(grpcs))
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 -- its own
    assert isinstance(again, type(grpcs))
    assert str(again) == str(ours)


def test_errors_are_known_without_importing_what_is_private() -> None:
    """GRPC's private module reads settings from the environment when it is imported: that is left to gRPC."""
    program = "import sys, grpcpool; sys.exit('grpc._channel' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)  # noqa: S603 -- fixed


def test_servers_errors_are_grpcs_own(calls: CallServer, plain: grpc.Channel, single: ChannelPool) -> None:
    """What the server answers comes through untouched: class, text and trailing metadata."""
    for way in WAYS:
        errors = [
            _error(lambda channel=channel: way.finish(way.begin(channel, "fail")))  # noqa: B023
            for channel in (plain, single)
        ]
        assert type(errors[0]) is type(errors[1])
        assert errors[0].trailing_metadata() == errors[1].trailing_metadata()
        assert str(errors[0]).splitlines()[:3] == str(errors[1]).splitlines()[:3]
        assert errors[1].__cause__ is None


def test_closing_while_calls_wait_for_the_first_connection(dead: str) -> None:
    """A call that waits for a connection when the pool is closed fails `CANCELLED`, with the pool's error behind."""
    pool = grpcpool.insecure_channel(dead)
    waiting = background(lambda: pool.unary_unary(UU)(b"", timeout=LONG, wait_for_ready=True))
    eventually(lambda: pool.stats().waiting == 1)
    pool.close()
    error: Any = waiting.exception(LONG)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.CANCELLED
    assert isinstance(error.__cause__, PoolClosedError)
