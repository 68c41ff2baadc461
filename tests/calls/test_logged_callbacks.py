"""What a user's callback raises is logged; gRPC's thread, which runs the callbacks of a channel, survives it."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import wrapt
from grpc.experimental import ChannelOptions

import grpcpool
from grpcpool import ChannelPool, PoolConfig
from grpcpool._grpc.logged_callbacks import log_callbacks
from grpcpool._sync.work_queue import run_logged
from grpcpool.testing import FakeChannel, FakeFactory
from support.call_server import SS, SU, UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, eventually
from support.ways import NOT_BLOCKING, Way

pytestmark = pytest.mark.timeout(60)

LOGGED = "a callback of a call failed"
ADDERS = ("add_callback", "add_done_callback")
RAISED = (ArithmeticError, SystemExit, KeyboardInterrupt)

BIDI = next(way for way in NOT_BLOCKING if way.method == SS)
COLLECT = next(way for way in NOT_BLOCKING if way.method == SU)
FUTURE = next(way for way in NOT_BLOCKING if way.method == UU)
NATIVE = pytest.mark.parametrize("way", [COLLECT, BIDI], ids=str)
"""Calls that are gRPC's own on a pool, too."""

Begin = Callable[[Way, str], Any]


def _raising(kind: type[BaseException]) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise kind("as the test wants")

    return fail


def _logged(caplog: pytest.LogCaptureFixture) -> list[type[BaseException] | None]:
    """The kinds of what callbacks raised, as grpcpool logged them; no other logger has an error."""
    assert {record.name for record in caplog.records if record.levelno >= logging.ERROR} <= {"grpcpool"}
    return [record.exc_info[0] for record in caplog.records if record.exc_info and record.message == LOGGED]


@pytest.fixture(params=["pool", "waited", "lease", "streams"])
def begin(request: pytest.FixtureRequest, single: ChannelPool) -> Iterator[Begin]:
    """Begins a call: on a pool, at once or after a wait for its place, or on a lease of either kind."""

    def waited(way: Way, command: str) -> Any:
        with single.acquire(timeout=LONG):
            call = way.begin(single, command)
            eventually(lambda: single.stats().waiting == 1)
        return call

    def leased(way: Way, command: str) -> Any:
        with single.acquire(timeout=LONG, streams=1 if request.param == "streams" else None) as lease:
            return way.begin(lease, command)

    def on_the_pool(way: Way, command: str) -> Any:
        return way.begin(single, command)

    yield {"pool": on_the_pool, "waited": waited}.get(request.param, leased)
    assert_at_rest(single)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_callback_that_raises(
    calls: CallServer,
    single: ChannelPool,
    begin: Begin,
    way: Way,
    adder: str,
    kind: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged; the callbacks after it run, and later calls on the connection end."""
    tag = new_tag()
    call = begin(way, f"hold:{tag}")
    calls.wait_until_held(tag)
    followed = threading.Event()
    getattr(call, adder)(_raising(kind))
    assert call.add_callback(followed.set) is True
    call.cancel()
    assert followed.wait(LONG)
    assert FUTURE.finish(FUTURE.begin(single, timeout=LONG))
    assert _logged(caplog) == [kind]


@NATIVE
def test_the_callbacks_keep_their_order(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """Callbacks of both kinds are called in the order in which they were added; those of `Future` get the call."""
    tag = new_tag()
    call = way.begin(single, f"hold:{tag}")
    calls.wait_until_held(tag)
    called: list[Any] = []
    call.add_callback(lambda: called.append(1))
    call.add_done_callback(called.append)
    call.add_callback(lambda: called.append(3))
    call.cancel()
    eventually(lambda: called == [1, call, 3])


@NATIVE
def test_added_after_the_end(plain: grpc.Channel, single: ChannelPool, way: Way) -> None:
    """Then all is as in gRPC: one callback is refused, the other called at once, and its caller gets what it raises."""
    for channel in (plain, single):
        call = way.begin(channel)
        assert way.finish(call)
        called: list[Any] = []
        eventually(lambda call=call: call.add_callback(list) is False)  # type: ignore[misc]
        call.add_done_callback(called.append)
        call.add_done_callback(fn=called.append)
        assert called == [call, call]
        with pytest.raises(TypeError):
            call.add_done_callback()
        with pytest.raises(SystemExit):
            call.add_done_callback(_raising(SystemExit))


@NATIVE
def test_the_call_is_grpcs_own(plain: grpc.Channel, single: ChannelPool, way: Way) -> None:
    """It is of the class that gRPC gives it, and has nothing else."""
    of_grpc, ours = way.begin(plain), way.begin(single)
    assert type(ours) is type(of_grpc)
    assert dir(ours) == dir(of_grpc)
    assert way.finish(of_grpc) == way.finish(ours)


@NATIVE
def test_a_done_callback_keeps_its_call(single: ChannelPool, way: Way) -> None:
    """As in gRPC, a call that nothing else refers to runs on until its done-callback has been called."""
    ended = threading.Event()
    codes: list[Any] = []

    def note(call: Any) -> None:
        codes.append(call.code())
        ended.set()

    way.begin(single, timeout=0.3, command="hold:kept").add_done_callback(note)
    gc.collect()
    assert ended.wait(LONG)
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED]


@NATIVE
@pytest.mark.parametrize("on", ["pool", "lease"])
def test_a_dropped_call_is_cancelled(calls: CallServer, single: ChannelPool, way: Way, on: str) -> None:
    """Without a garbage collection, also if a callback without arguments was added, which is called."""
    tag = new_tag()
    called = threading.Event()
    gc.disable()
    try:
        with single.acquire(timeout=LONG) if on == "lease" else single as channel:
            call = way.begin(channel, f"hold:{tag}")
            calls.wait_until_held(tag)
            call.add_callback(called.set)
            gone = weakref.ref(call)
            del call
            assert gone() is None
            calls.wait_until_let_go(tag)
            assert called.wait(LONG)
    finally:
        gc.enable()


@pytest.mark.parametrize("adder", ADDERS)
def test_a_single_threaded_stream(calls: CallServer, adder: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its callbacks run on the thread that reads it; what they raise does not get in the way of the reader."""
    options = [(ChannelOptions.SingleThreadedUnaryStream, 1)]
    way = next(way for way in NOT_BLOCKING if way.maker == "unary_stream")
    with grpcpool.insecure_channel(calls.target, options, config=PoolConfig(max_size=1)) as pool:
        with pool.acquire(timeout=LONG) as lease:
            call = way.begin(lease)
            getattr(call, adder)(_raising(ArithmeticError))
            assert list(call) == [b"0", b"1", b"2"]
        assert_at_rest(pool)
    assert _logged(caplog) == [ArithmeticError]


# --- what interceptors return ---------------------------------------------------------------------------------------


class _Delegates:
    """A call of an interceptor's that forwards to gRPC's what it does not have."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Any:
        return self._call


class _Frozen(_Delegates):
    """One that forbids changes."""

    def __init__(self, call: Any) -> None:
        self.__dict__["_call"] = call

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class _Returns(grpc.StreamStreamClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]  # the stubs' is generic
    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self._wrap = wrap

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._wrap(continuation(details, requests))


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("wrap", [_Delegates, _Frozen, wrapt.ObjectProxy])
def test_what_an_interceptor_returns(
    calls: CallServer, make_pool: PoolMaker, wrap: Callable[[Any], Any], adder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An object that passes callbacks on to gRPC's call is what the caller gets, and its callbacks are logged, too."""
    pool = make_pool(lambda: grpc.intercept_channel(calls.channel(), _Returns(wrap)), max_size=1, max_streams=1)
    pool.open()
    tag = new_tag()
    call = BIDI.begin(pool, f"hold:{tag}")
    assert isinstance(call, type(wrap(None)))
    calls.wait_until_held(tag)
    getattr(call, adder)(_raising(SystemExit))
    call.cancel()
    eventually(lambda: _logged(caplog) == [SystemExit])
    assert FUTURE.finish(FUTURE.begin(pool, timeout=LONG))


def test_what_cannot_be_changed_stays_as_it_is() -> None:
    """An object without room for a change, or without callbacks, is left alone."""

    class Slotted:
        __slots__ = ("callbacks",)

        def add_callback(self, callback: Callable[[], None]) -> bool:
            self.callbacks = [callback]
            return True

    class Sealed:
        def __init_subclass__(cls) -> None:
            raise TypeError("as the test wants")

        def add_done_callback(self, fn: Callable[[Any], None]) -> None:
            fn(self)

    for kind in (Slotted, Sealed, object):
        thing: Any = kind()
        log_callbacks(thing, run_logged)
        assert type(thing) in (kind, *kind.__subclasses__())
    slotted = Slotted()
    log_callbacks(slotted, run_logged)
    assert slotted.add_callback(_raising(ArithmeticError))


def test_classes_of_interceptors_are_not_collected_without_end() -> None:
    """Subclasses are kept for the classes that calls have, not for each that ever was."""
    gone = []
    for _ in range(100):
        kind = type("Call", (), {"add_callback": lambda self, callback: callback()})
        thing: Any = kind()
        log_callbacks(thing, run_logged)
        log_callbacks(thing, run_logged)
        gone.append(weakref.ref(kind))
        with pytest.raises(ArithmeticError):
            thing.add_callback(_raising(ArithmeticError))
        del kind, thing
    gc.collect()
    assert sum(one() is not None for one in gone) <= 64


def test_a_fake_call(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """So it is with the calls of `grpcpool.testing`: their test goes on after a callback that raises."""
    channel = FakeChannel(holds_calls=True)
    pool = make_pool(FakeFactory(lambda: channel))
    for adder in ADDERS:
        call = BIDI.begin(pool)
        eventually(lambda: channel.calls)
        getattr(call, adder)(_raising(SystemExit))
        channel.calls.pop().finish([b"1"])
    eventually(lambda: _logged(caplog) == [SystemExit] * 2)
