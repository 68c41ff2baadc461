"""The pool survives foreign code: odd errors, metadata and callbacks, and pools in place of gRPC's channels."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import PoolConfig
from grpcpool.testing import FakeChannel, FakeFactory
from support.call_server import UU, CallServer
from support.pools import PoolMaker
from support.waiting import background, eventually

LONG = 20.0


class Odd(grpc.RpcError):
    """An interceptor's error, with a code and without details."""

    def code(self) -> grpc.StatusCode:
        """As in gRPC."""
        return grpc.StatusCode.UNAVAILABLE


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("error", [Odd(), grpc.RpcError(), SystemExit()], ids=lambda error: type(error).__name__)
def test_whatever_a_call_raises_its_place_is_released(make_pool: PoolMaker, error: BaseException) -> None:
    """An error without code or details, as interceptors raise, reaches the caller unchanged and releases the place."""

    class Raises(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise error

    pool = make_pool(lambda: grpc.intercept_channel(FakeChannel(), Raises()))
    call: Any = pool.unary_unary(UU)
    with pytest.raises(type(error)):
        call(b"a")
    assert pool.stats().in_flight == 0


def _metadata_that_fails() -> Iterator[tuple[str, str]]:
    yield "key", "value"
    raise ArithmeticError("as the test wants")


def test_unreadable_metadata_takes_no_place(make_pool: PoolMaker) -> None:
    """Metadata of a wrong type, or an iterator of metadata that raises, leaves no place taken."""
    pool = make_pool(FakeFactory())
    call: Any = pool.unary_unary(UU)
    assert call(b"a") == b"a"
    with pytest.raises(TypeError):
        call(b"a", metadata=5)
    with pytest.raises(ArithmeticError):
        call(b"a", metadata=_metadata_that_fails())
    assert pool.stats().in_flight == 0


def test_a_connect_error_without_text_does_not_delay_waiters(make_pool: PoolMaker) -> None:
    """The waiter is answered in time even if the `str()` of the factory's error raises."""

    class Mute(Exception):  # noqa: N818 -- as foreign errors are named
        def details(self, language: str) -> str:
            return language

        def __str__(self) -> str:
            raise ArithmeticError("not even that")

    pool = make_pool(lambda: _raise(Mute()))
    with pytest.raises(grpcpool.PoolTimeoutError) as caught:
        pool.acquire(timeout=0.2)
    assert isinstance(caught.value.__cause__, Mute)


def test_a_call_keeps_its_pool(calls: CallServer) -> None:
    """A call keeps its pool alive, as gRPC's calls keep their channel alive."""
    pool = grpcpool.insecure_channel(calls.target)
    multicallable: Any = pool.unary_unary(UU)
    assert multicallable(b"ok", timeout=LONG)
    future = multicallable.future(b"ok", timeout=LONG)
    gone = weakref.ref(pool)
    del pool, multicallable
    gc.collect()
    assert future.result(LONG)
    del future
    eventually(lambda: gc.collect() >= 0 and gone() is None)


def test_a_callback_may_make_calls_and_wait_for_them(make_pool: PoolMaker) -> None:
    """A done-callback of a timed-out call can make a call that waits; calls that have places still start."""
    channel = FakeChannel(holds_calls=True)
    pool = make_pool(FakeFactory(lambda: channel), max_size=1, max_streams=1)
    call: Any = pool.unary_unary(UU)
    first = call.future(b"a")
    eventually(lambda: len(channel.calls) == 1)
    timed_out = call.future(b"b", timeout=0.5)
    answers: list[Any] = []
    timed_out.add_done_callback(lambda _: answers.append(call(b"again", timeout=LONG)))
    second = call.future(b"c")
    eventually(lambda: timed_out.done() and pool.stats().waiting == 2)
    channel.calls[0].finish([b"1"])
    eventually(lambda: len(channel.calls) == 2)
    channel.calls[1].finish([b"2"])
    eventually(lambda: len(channel.calls) == 3)
    channel.calls[2].finish([b"3"])
    eventually(lambda: answers)
    assert (first.result(LONG), second.result(LONG), answers) == (b"1", b"2", [b"3"])


def test_each_callback_is_called(make_pool: PoolMaker) -> None:
    """A callback that raises, even `SystemExit`, stops neither the other callbacks nor later calls."""
    channel = FakeChannel(holds_calls=True)
    pool = make_pool(FakeFactory(lambda: channel), max_size=1, max_streams=1)
    call: Any = pool.unary_unary(UU)
    first = call.future(b"a")
    eventually(lambda: len(channel.calls) == 1)
    waiting = call.future(b"b")
    told: list[str] = []
    waiting.add_callback(lambda: _raise(SystemExit()))
    waiting.add_callback(lambda: told.append("second"))
    waiting.cancel()
    eventually(lambda: told == ["second"])
    following = call.future(b"c")
    channel.calls[0].finish([b"1"])
    eventually(lambda: len(channel.calls) == 2)
    channel.calls[1].finish([b"3"])
    assert (first.result(LONG), following.result(LONG)) == (b"1", b"3")


def test_a_pool_in_place_of_grpcs_constructor(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `grpcpool.insecure_channel`, or a wrapper, in place of gRPC's, pools consist of channels, not of pools."""
    config = PoolConfig(min_size=2)
    monkeypatch.setattr(
        grpc, "insecure_channel", lambda *how, **more: grpcpool.insecure_channel(*how, config=config, **more)
    )
    with grpc.insecure_channel(calls.target) as pool:
        assert isinstance(pool, grpcpool.ChannelPool)
        pool.open()
        multicallable: Any = pool.unary_unary(UU)
        assert background(lambda: multicallable(b"ok", timeout=LONG)).result(LONG)
        with pool.acquire() as lease:
            assert not isinstance(lease._channel.channel, grpcpool.ChannelPool)
