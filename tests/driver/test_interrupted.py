"""Signal handlers that raise, as for Celery's soft time limit and Ctrl-C, at every point where they may run.

CPython runs handlers when a function is entered, when a C function has returned, and when a loop repeats. These tests
interrupt each point of the first two kinds within the package, and within what it uses of `threading`, one after the
other.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, Lease, PoolConfig, PoolTimeoutError
from grpcpool._shared.driver import Driver
from grpcpool._shared.finalizers import LeftPlace
from grpcpool.testing import FakeChannel, FakeFactory
from support.servers import COUNT, ECHO
from support.signals import RaisesAt, TimeLimitError
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(120)


_MOST = 500


_REFUSED = "Received RST_STREAM with error code 7"


class _Handler(RaisesAt):
    """Raises at the point with that number."""

    def __init__(self, number: int) -> None:
        super().__init__(number, _is_ours)

    def interrupt(self, work: Callable[[], object]) -> None:
        """Runs `work` with this handler active."""
        sys.setprofile(self)
        try:
            work()
        except TimeLimitError:
            pass
        finally:
            sys.setprofile(None)


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals is vars(threading):
        if frame.f_code is threading.Thread.start.__code__:
            # In CPython itself, a thread whose start is interrupted may never begin to run.
            return False
        frame = frame.f_back
    name = str(frame and frame.f_globals.get("__name__"))
    return name.startswith("grpcpool.") and not name.startswith("grpcpool.testing")


def _lease_all(pool: ChannelPool) -> None:
    pool.acquire(timeout=1).release()


def _lease_one(pool: ChannelPool) -> None:
    pool.acquire(timeout=1, streams=1).release()


def _call_on_lease(pool: ChannelPool) -> None:
    with pool.acquire(timeout=1, streams=1) as lease:
        lease.unary_unary(ECHO)(b"")


def _call(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO)(b"")


def _future(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO).future(b"").result(1)


def _stream(pool: ChannelPool) -> None:
    list(pool.unary_stream(COUNT)(b""))


def _upload(pool: ChannelPool) -> None:
    pool.stream_unary(ECHO).future(iter([b""])).result(1)


# An exception from a handler that runs in a finalizer ends only that finalizer.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("work", [_lease_all, _lease_one, _call_on_lease, _call, _future, _stream, _upload])
def test_an_interruption_leaves_nothing_in_flight(work: Callable[[ChannelPool], None], picker: Any) -> None:
    """Wherever a handler raises during a lease or call without a wait, nothing stays in flight and the pool works."""
    with ChannelPool(FakeFactory(), PoolConfig(min_size=2, max_size=2, picker=picker)) as pool:
        pool.open()
        work(pool)
        for number in range(1, _MOST):
            handler = _Handler(number)
            with warnings.catch_warnings():
                # A lease that the interruption leaves unreleased is released by the garbage collector.
                warnings.simplefilter("ignore", ResourceWarning)
                handler.interrupt(lambda: work(pool))
                gc.collect()
            eventually(lambda: pool.stats().in_flight == 0)
            for lease in [pool.acquire(timeout=1), pool.acquire(timeout=1)]:
                lease.release()
            work(pool)
            assert pool.stats().in_flight == 0
            if not handler.raised:
                return
    pytest.fail("the handler still raised at the last point")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", [Lease.release, Lease.discard])
def test_an_interrupted_lease_is_no_leak(end: Callable[[Lease], None]) -> None:
    """Wherever a handler raises while a lease is taken or released, it is not reported as held once it is gone."""
    with ChannelPool(FakeFactory(), PoolConfig(max_size=1, leak_threshold=LONG)) as pool:
        pool.open()
        driver: Any = pool._driver
        for number in range(1, _MOST):
            handler = _Handler(number)
            with warnings.catch_warnings():
                # It may not have been released.
                warnings.simplefilter("ignore", ResourceWarning)
                handler.interrupt(lambda: end(pool.acquire(timeout=1)))
                gc.collect()
            eventually(lambda: driver.leaks.next_deadline() == math.inf)
            if not handler.raised:
                return
    pytest.fail("there is no end of it")


def _release(pool: ChannelPool, lease: Lease) -> None:
    lease.release()


def _discard(pool: ChannelPool, lease: Lease) -> None:
    lease.discard()


def _acquire_another(pool: ChannelPool, lease: Lease) -> None:
    with contextlib.suppress(PoolTimeoutError):
        pool.acquire(timeout=0, streams=1)
    lease.release()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("streams", [None, 1])
@pytest.mark.parametrize("work", [_release, _discard, _acquire_another])
def test_a_waiter_gets_its_answer_whatever_is_interrupted(
    work: Callable[[ChannelPool, Lease], None], streams: int | None
) -> None:
    """Wherever a handler raises while a release serves a waiter, the waiter gets its place, and none is lost."""
    for number in range(1, _MOST):
        if not _is_interrupted_beside_a_waiter(work, streams, number):
            return
    pytest.fail("there is no end of it")


def _is_interrupted_beside_a_waiter(
    work: Callable[[ChannelPool, Lease], None], streams: int | None, number: int
) -> bool:
    """Does the work, which releases the only lease, with a handler that raises at the point of that number, if any."""
    with ChannelPool(FakeFactory(), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
        pool.open()
        lease = [pool.acquire(streams=streams)]
        waiting = background(lambda: pool.acquire(timeout=LONG, streams=streams))
        eventually(lambda: pool.stats().waiting == 1)
        handler = _Handler(number)
        handler.interrupt(lambda: work(pool, lease[0]))
        with warnings.catch_warnings():
            # A lease whose release was interrupted before it began is released by the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            lease.clear()
            pool.stats()
            if not waiting.done():
                gc.collect()
        waiting.result(LONG).release()
        assert pool.stats().in_flight == 0
    return handler.raised


def _recovers(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not Driver.recover.__code__:
        frame = frame.f_back
    return frame is not None


@pytest.mark.parametrize("streams", [None, 1])
def test_a_second_handler_raises_as_the_pool_recovers(streams: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it raises from then on, the waiter that the first has kept from its answer gets a place."""
    # The first point is before it has begun: the place goes to the waiter with the next step then.
    for number in range(2, _MOST):
        with ChannelPool(FakeFactory(), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
            pool.open()
            lease = pool.acquire(streams=streams)
            waiting = background(lambda: pool.acquire(timeout=LONG, streams=streams))
            eventually(lambda: pool.stats().waiting == 1)
            machine = pool._driver.machine

            def interrupted(*_: object) -> None:
                monkeypatch.undo()
                raise TimeLimitError

            monkeypatch.setattr(machine, "settle", interrupted)
            second = RaisesAt(number, lambda frame: _is_ours(frame) and _recovers(frame))
            sys.setprofile(second)
            try:
                with pytest.raises(TimeLimitError):
                    lease.release()
            finally:
                sys.setprofile(None)
            waiting.result(LONG).release()
            assert pool.stats().in_flight == 0
        if not second.raised:
            return
    pytest.fail("there is no end of it")


def _begin_future(pool: ChannelPool) -> Any:
    return pool.unary_unary(ECHO).future(b"", timeout=LONG)


def _answers_nothing() -> FakeChannel:
    """A channel whose streams end without being read."""
    return FakeChannel({COUNT: lambda request: ()})


def _begin_stream(pool: ChannelPool) -> Any:
    return pool.unary_stream(COUNT)(b"", timeout=LONG)


def _result(call: Any) -> None:
    call.result()


def _result_in_time(call: Any) -> None:
    call.result(LONG)


def _code(call: Any) -> None:
    call.code()


def _read(call: Any) -> None:
    list(call)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("begin", "wait"),
    [(_begin_future, _result), (_begin_future, _result_in_time), (_begin_future, _code), (_begin_stream, _read)],
)
def test_a_call_that_its_caller_waits_for_ends(
    begin: Callable[[ChannelPool], Any], wait: Callable[[Any], None]
) -> None:
    """Wherever a handler raises while a caller waits for its queued call, the call ends, and its place is free."""
    for number in range(1, _MOST):
        if not _is_interrupted_in_its_wait(begin, wait, number):
            return
    pytest.fail("there is no end of it")


def _is_interrupted_in_its_wait(begin: Callable[[ChannelPool], Any], wait: Callable[[Any], None], number: int) -> bool:
    """Waits for a queued call, for which there is soon room, with a handler that raises at the point of that number."""
    with ChannelPool(FakeFactory(_answers_nothing), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
        pool.open()
        lease = pool.acquire()
        call = begin(pool)
        handler = _Handler(number)

        def release_when_it_waits() -> None:
            eventually(lambda: getattr(call._stage, "callers_wait", None) or handler.raised)
            lease.release()

        released = background(release_when_it_waits)
        handler.interrupt(lambda: wait(call))
        released.result(LONG)
        ended = threading.Event()
        call.add_done_callback(lambda _: ended.set())
        assert ended.wait(LONG)
        # Also while the call is kept.
        eventually(lambda: pool.stats().in_flight == 0)
        pool.unary_unary(ECHO)(b"", timeout=LONG)
    return handler.raised


class _Interrupted(grpc.UnaryUnaryClientInterceptor):
    """Is interrupted when the main thread starts a call through it, as by Ctrl-C while it fetches a token."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return continuation(client_call_details, request)


@pytest.mark.parametrize("how", ["result", "exception", "traceback", "code", "details", "initial_metadata"])
def test_an_interrupted_start_reaches_the_caller(how: str) -> None:
    """A caller that waits for its queued call starts it itself. What interrupts the start is not the call's error."""

    def make() -> grpc.Channel:
        return grpc.intercept_channel(FakeChannel(), _Interrupted())

    with ChannelPool(make, PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
        pool.open()
        lease = pool.acquire()
        call = _begin_future(pool)

        def release_when_it_waits() -> None:
            eventually(lambda: getattr(call._stage, "callers_wait", None))
            lease.release()

        released = background(release_when_it_waits)
        with pytest.raises(KeyboardInterrupt):
            getattr(call, how)()
        released.result(LONG)
        assert call.done()
        eventually(lambda: pool.stats().in_flight == 0)


def _has_ended_or_been_sent_again(ended: threading.Event, made: FakeChannel) -> bool:
    return ended.is_set() or len(made.calls) > 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_refused_call_ends() -> None:
    """Wherever a handler raises while a call that the server refused ends, it is sent again, or fails."""
    for number in range(1, _MOST):
        factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
        with ChannelPool(factory, PoolConfig(min_size=1, max_size=1)) as pool:
            pool.open()
            call = _begin_future(pool)
            ended = threading.Event()
            call.add_done_callback(lambda _, ended=ended: ended.set())
            (refused,) = factory.made[0].calls
            handler = _Handler(number)
            end = call._stage.end
            handler.interrupt(partial(refused.fail, grpc.StatusCode.UNAVAILABLE, _REFUSED))
            # Both the caller and gRPC's thread call it. This is the other one.
            background(end).result(LONG)
            eventually(partial(_has_ended_or_been_sent_again, ended, factory.made[0]))
            for again in factory.made[0].calls[1:]:
                again.finish([b""])
            assert isinstance(background(call.exception).result(LONG), grpc.RpcError | type(None))
            assert ended.wait(LONG)
            assert pool.stats().in_flight == 0
        if not handler.raised:
            return
    pytest.fail("there is no end of it")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("begin", [_begin_future, _begin_stream])
def test_a_call_that_nothing_waits_for_is_started(begin: Callable[[ChannelPool], Any]) -> None:
    """Wherever a handler raises while a release serves a queued call, the release returns, and the call is started."""
    for number in range(1, _MOST):
        with ChannelPool(FakeFactory(_answers_nothing), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
            pool.open()
            lease = pool.acquire()
            call = begin(pool)
            ended = threading.Event()
            call.add_done_callback(lambda _, ended=ended: ended.set())
            handler = _Handler(number)
            handler.interrupt(lease.release)
            # If it was interrupted before it began.
            lease.release()
            assert ended.wait(LONG)
            assert pool.stats().in_flight == 0
        if not handler.raised:
            return
    pytest.fail("there is no end of it")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cancel_wakes_the_thread_that_waits_for_the_call() -> None:
    """Wherever a handler raises while a queued call is cancelled, a cancel after it ends the wait of another thread."""
    with ChannelPool(FakeFactory(), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
        pool.open()
        lease = pool.acquire()
        for number in range(1, _MOST):
            call = _begin_future(pool)
            waiting = background(call.exception)
            eventually(partial(getattr, call, "_awaiting_change"))
            handler = _Handler(number)
            handler.interrupt(call.cancel)
            call.cancel()
            with pytest.raises(grpc.FutureCancelledError):
                waiting.result(LONG)
            if not handler.raised:
                break
        else:
            pytest.fail("there is no end of it")
        lease.release()


def _cancel(calls: list[Any]) -> None:
    calls[0].cancel()


def _drop(calls: list[Any]) -> None:
    calls.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", [_cancel, _drop])
def test_the_callbacks_of_a_call_that_never_starts(end: Callable[[list[Any]], None]) -> None:
    """Wherever a handler raises while a queued call is cancelled or dropped, its callbacks are called, once each."""
    for number in range(1, _MOST):
        if not _is_interrupted_at_its_end(end, number):
            return
    pytest.fail("there is no end of it")


def _is_interrupted_at_its_end(end: Callable[[list[Any]], None], number: int) -> bool:
    """Ends a queued call that has callbacks, with a handler that raises at the point of that number."""
    with ChannelPool(FakeFactory(), PoolConfig(min_size=1, max_size=1, max_streams=1)) as pool:
        pool.open()
        lease = pool.acquire()
        calls = [_begin_future(pool)]
        called: list[int] = []
        # Those added by `add_done_callback` would keep the call.
        for i in range(3):
            calls[0].add_callback(partial(called.append, i))
        handler = _Handler(number)
        handler.interrupt(lambda: end(calls))
        if calls:
            calls[0].cancel()
        # A call that was interrupted as it began to be dropped leaves the queue when its turn has come.
        lease.release()
        eventually(lambda: called == [0, 1, 2])
        eventually(lambda: pool.stats().in_flight == 0)
        assert called == [0, 1, 2]
    return handler.raised


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_close_can_be_repeated() -> None:
    """Wherever a handler raises while a pool is closed, the next close ends, and nothing is left."""
    for number in range(1, _MOST):
        pool = ChannelPool(FakeFactory(), PoolConfig(min_size=1, max_size=1))
        pool.open()
        handler = _Handler(number)
        handler.interrupt(pool.close)
        background(pool.close).result(LONG)
        assert pool.stats().size == 0
        if not handler.raised:
            return
    pytest.fail("there is no end of it")


@pytest.mark.parametrize("lost", [False, True], ids=["begun", "not begun"])
def test_a_place_that_a_dropped_lease_left(lost: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It is released, also if the thread that does so is interrupted as it begins, or before."""
    with ChannelPool(FakeFactory()) as pool:
        pool.open()
        driver: Any = pool._driver
        lease: Any = pool.acquire(streams=1)
        left = LeftPlace(driver, lease._slot, 1)
        lease._released = True
        del lease
        release = driver.release

        def interrupted(*_: object) -> None:
            driver.release = release
            raise RuntimeError("interrupted")

        if lost:
            del left
        else:
            driver.release = interrupted
            with pytest.raises(RuntimeError, match="interrupted"):
                left()
        eventually(lambda: pool.stats().in_flight == 0)
    assert not caplog.records or {record.levelname for record in caplog.records} == {"INFO"}
