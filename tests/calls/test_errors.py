"""What callers get when the server is unreachable or the pool is closed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import ChannelPool, PoolClosedError, PoolConfig, PoolTimeoutError
from support.call_server import UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually
from support.ways import WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)

# With a `prime`, the pool itself fails calls while nothing is up.
_REFUSING = PoolConfig(prime=lambda _: None)


def _error(work: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return caught.value


# --- the server is unreachable --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_dead_target_is_unavailable(dead: str, way: Way) -> None:
    """A call fails long before its deadline, and as on a channel without a pool: gRPC fails it."""
    with grpc.insecure_channel(dead) as plain:
        expected = _error(lambda: way.finish(way.begin(plain, timeout=5)))
    with grpcpool.insecure_channel(dead) as pool:
        error = _error(lambda: way.finish(way.begin(pool, timeout=LONG)))
        assert error.code() is expected.code() is grpc.StatusCode.UNAVAILABLE
        assert "Connection refused" in expected.details()
        assert "Connection refused" in error.details()
        assert dead in error.details()
        assert type(error) is type(expected)
        assert_at_rest(pool)


def test_a_dead_target_stays_unavailable(dead: str) -> None:
    """Further calls fail at once, although the pool pauses between its attempts to connect."""
    with grpcpool.insecure_channel(dead) as pool:
        for _ in range(200):
            error = _error(lambda: WAYS[0].begin(pool, timeout=LONG))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert pool.stats().open_failures < 50
        assert pool.stats().size <= 10


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_wait_for_ready_waits_for_the_server(way: Way) -> None:
    """A call with `wait_for_ready` does not fail while the server is unreachable; it runs once the server is up."""
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
def test_wait_for_ready_fails_at_the_deadline(dead: str, way: Way) -> None:
    """Without a server the call fails `DEADLINE_EXCEEDED`, as gRPC's does; the cause is the connect error."""
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


# --- after the close ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_after_the_close(calls: CallServer, make_pool: PoolMaker, way: Way, used: bool) -> None:
    """A call on a closed pool raises at once what a closed channel raises: the same type, the same text."""
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
    """A multicallable made before the close raises the same as one made after it; making one never raises."""
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
    """While `close(grace)` waits for the calls in flight, a new call is refused as after the close."""
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
    """When the last call ends within the grace, `close()` returns, and no thread waits for the rest of the grace."""
    pool = ChannelPool(calls.channel, name="graceful")
    pool.open()
    running = WAYS[2].begin(pool, f"hold:{new_tag()}")
    closing = background(lambda: pool.close(grace=3600))
    eventually(lambda: pool.closed)
    running.cancel()
    closing.result(LONG)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("grpcpool-graceful")]
    # End the thread, so that other tests do not find it.
    pool.close(grace=0)
    assert left == []


def test_close_is_idempotent_as_grpcs(calls: CallServer, plain: grpc.Channel, make_pool: PoolMaker) -> None:
    """A pool and a channel may both be closed repeatedly, also by leaving a `with` block."""
    for channel in (plain, make_pool(calls.channel)):
        with channel as entered:
            assert entered is channel
            assert outcome_of(lambda channel=channel: WAYS[0].begin(channel))[0] == "answer"  # type: ignore[misc]
            channel.close()
        channel.close()


# --- the text -------------------------------------------------------------------------------------------------------


def test_the_text_of_an_error(dead: str) -> None:
    """`str()` of a pool's error has the form of gRPC's own: status, details, debug text."""
    with grpc.insecure_channel(dead) as plain:
        native = str(_error(lambda: WAYS[0].begin(plain, timeout=5)))
    with grpcpool.insecure_channel(dead, name="orders", config=_REFUSING) as pool:
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
def test_the_details_of_a_refusal(calls: CallServer, make_pool: PoolMaker, way: Way) -> None:
    """The details of a refusal name the pool, the numbers and the remedy, like the pool's error."""
    pool = make_pool(calls.channel, name="orders", max_size=1, max_streams=1, acquire_timeout=0.05)
    pool.open()
    with pool.acquire():
        error = _error(lambda: way.finish(way.begin(pool, timeout=None)))
    assert isinstance(error.__cause__, PoolTimeoutError)
    assert error.details() == str(error.__cause__)
    assert error.details().startswith(
        "pool 'orders': timed out waiting for a place (asked for a call; 1 of 1 connections open, 1 in flight"
    )
    assert error.details().endswith("; release leases sooner, raise max_size, or wait longer")


def test_an_error_is_a_call_and_a_future(dead: str) -> None:
    """An error of the pool has every member of a call and a future, as gRPC's own has."""
    with grpcpool.insecure_channel(dead, config=_REFUSING) as pool:
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
    """A pool's error is caught by `except` clauses with gRPC's private class, which many programs use."""
    with grpcpool.insecure_channel(dead, config=_REFUSING) as pool, grpc.insecure_channel(dead) as channel:
        ours, grpcs = (_error(lambda one=one: WAYS[0].begin(one, timeout=5)) for one in (pool, channel))
    assert type(grpcs).__name__ == "_InactiveRpcError"
    assert isinstance(ours, type(grpcs))
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 -- its own
    assert isinstance(again, type(grpcs))
    assert str(again) == str(ours)


def test_errors_are_known_without_importing_what_is_private() -> None:
    """Importing grpcpool does not import gRPC's private module, which reads settings from the environment."""
    program = "import sys, grpcpool; sys.exit('grpc._channel' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)  # noqa: S603 -- fixed


def test_servers_errors_are_grpcs_own(calls: CallServer, plain: grpc.Channel, single: ChannelPool) -> None:
    """An error from the server arrives unchanged: class, text and trailing metadata."""
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
    """A call waiting for a connection when the pool closes fails `CANCELLED`; its cause is the pool's error."""
    pool = grpcpool.insecure_channel(dead)
    waiting = background(lambda: pool.unary_unary(UU)(b"", timeout=LONG, wait_for_ready=True))
    eventually(lambda: pool.stats().waiting == 1)
    pool.close()
    error: Any = waiting.exception(LONG)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.CANCELLED
    assert isinstance(error.__cause__, PoolClosedError)
