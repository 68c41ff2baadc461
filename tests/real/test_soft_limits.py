"""Signal handlers that raise within gRPC's own code, as Celery's soft time limit does, while a call runs.

They are raised at each point at which a handler may run there: see `tests/driver/test_interrupted.py`. A lock that
stays locked is noticed by other threads only, so that what follows runs on another one.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import grpc
import pytest
from grpc.experimental import ChannelOptions

from grpcpool import ChannelPool, isolated
from support.connections import connections_to
from support.pools import PoolMaker
from support.servers import CHAT, COLLECT, COUNT, ECHO, Server
from support.signals import RaisesAt, TimeLimitError
from support.waiting import LONG, background, eventually

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_MOST = 500

_SECONDS = 5.0
"""Within which a call after it ends."""


@pytest.fixture(autouse=True)
def _finalizers_that_are_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised in a finalizer ends only that finalizer. To report it would keep the call."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


def _grpcs_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.endswith("(_run)")}


def _is_grpcs(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals is vars(threading):
        frame = frame.f_back
    return str(frame and frame.f_globals.get("__name__")).startswith("grpc.")


def _three() -> Iterator[bytes]:
    return iter([b"0", b"1", b"2"])


def _stream(channel: Any) -> Any:
    return channel.unary_stream(COUNT)(b"3,1", timeout=_SECONDS)


def _chat(channel: Any) -> Any:
    return channel.stream_stream(CHAT)(_three(), timeout=_SECONDS)


def _future(channel: Any) -> Any:
    return channel.unary_unary(ECHO).future(b"a", timeout=_SECONDS)


def _upload(channel: Any) -> Any:
    return channel.stream_unary(COLLECT).future(_three(), timeout=_SECONDS)


def _result(call: Any) -> None:
    call.result()


def _code(call: Any) -> None:
    call.code()


def _cancel(call: Any) -> None:
    call.done()
    call.cancel()


def _drop_half_read(call: Any) -> None:
    next(call)


_USES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], object]]] = {
    "a stream is read": (_stream, list),
    "a stream is dropped": (_stream, _drop_half_read),
    "a stream is cancelled": (_stream, _cancel),
    "a chat is read": (_chat, list),
    "a future's result": (_future, _result),
    "a future's code": (_future, _code),
    "an upload's result": (_upload, _result),
}

_LEASES: dict[str, Callable[[ChannelPool], Any]] = {
    "whole": lambda pool: pool.acquire(timeout=_SECONDS),
    "shared": lambda pool: pool.acquire(timeout=_SECONDS, streams=1),
    "none": lambda pool: pool,
}


@pytest.mark.parametrize("lease", _LEASES.values(), ids=_LEASES)
@pytest.mark.parametrize(("begin", "use"), _USES.values(), ids=_USES)
def test_other_threads_go_on(
    server: Server,
    make_pool: PoolMaker,
    lease: Callable[[ChannelPool], Any],
    begin: Callable[[Any], Any],
    use: Callable[[Any], object],
) -> None:
    """Wherever a handler raises while a call runs, its place is released, and the connection serves other threads."""
    pool = make_pool(server.channel, max_size=1)
    _use_at_each_point(pool, lease, begin, use)


@pytest.mark.parametrize("lease", _LEASES.values(), ids=_LEASES)
def test_streams_without_a_thread(make_pool: PoolMaker, lease: Callable[[ChannelPool], Any]) -> None:
    """The same holds with `SingleThreadedUnaryStream`. A server of its own: gRPC leaves some connections open then."""
    options = isolated([(ChannelOptions.SingleThreadedUnaryStream, 1)])
    with Server() as server:
        pool = make_pool(lambda: grpc.insecure_channel(server.target, options), max_size=1)
        _use_at_each_point(pool, lease, _stream, list)


@pytest.mark.parametrize("how", ["a future", "a stream"])
def test_calls_that_are_begun(server: Server, make_pool: PoolMaker, how: str) -> None:
    """Wherever a handler raises while a call begins, nothing stays of it: no connection, and no thread."""
    pool = make_pool(server.channel, max_size=1)
    threads = _grpcs_threads()
    pool.open()
    for number in range(1, _MOST):
        handler = RaisesAt(number, _may_leave_nothing)
        with _active(handler):
            # If it has begun, it ends by its deadline: the caller has no means to end it.
            if how == "a future":
                pool.unary_unary(ECHO).future(b"a", timeout=1.0)
            else:
                pool.unary_stream(COUNT)(b"3,1", timeout=1.0)
        gc.collect()
        background(lambda: _works(pool)).result(LONG)
        eventually(lambda: connections_to(server.port) == 1 and not any(map(_runs, _grpcs_threads() - threads)))
        if not handler.raised:
            return
    pytest.fail("the handler still raised at the last point")


def _may_leave_nothing(frame: FrameType) -> bool:
    """Whether a frame is gRPC's. In one of its functions, gRPC forgets a call that it has made, with its connection."""
    return _is_grpcs(frame) and frame.f_code.co_name != "get_plugin"


def _runs(thread: threading.Thread) -> bool:
    """In CPython itself, a thread whose start is interrupted may stay in the list of threads, and never run."""
    return thread.is_alive()


def _use_at_each_point(
    pool: ChannelPool,
    lease: Callable[[ChannelPool], Any],
    begin: Callable[[Any], Any],
    use: Callable[[Any], object],
) -> None:
    pool.open()
    before = _grpcs_threads()
    for number in range(1, _MOST):
        handler = RaisesAt(number, _is_grpcs)
        _use(pool, lease, begin, use, handler)
        gc.collect()
        background(lambda: _works(pool)).result(LONG)
        eventually(lambda: pool.stats().in_flight == 0)
        # One that goes on after the last call may crash the process when the channel is closed.
        eventually(lambda: _grpcs_threads() <= before)
        if not handler.raised:
            return
    pytest.fail("the handler still raised at the last point")


def _use(
    pool: ChannelPool,
    lease: Callable[[ChannelPool], Any],
    begin: Callable[[Any], Any],
    use: Callable[[Any], object],
    handler: RaisesAt,
) -> None:
    """Uses a call over a lease, or over the pool, with the handler active."""
    channel = lease(pool)
    call = begin(channel)
    with _active(handler):
        use(call)
        # Within the finalizer of the call.
        del call
    if channel is not pool:
        channel.release()


@contextlib.contextmanager
def _active(handler: RaisesAt) -> Iterator[None]:
    """The handler is active in the block, which ends by what it raises, or goes on to its end."""
    sys.setprofile(handler)
    try:
        yield
    except TimeLimitError:
        pass
    except RuntimeError as error:
        # In CPython itself, a condition whose `wait` is interrupted as it gives its lock up fails to release it.
        assert isinstance(error.__context__, TimeLimitError)  # noqa: PT017 -- it may also succeed
    finally:
        sys.setprofile(None)


def _works(pool: ChannelPool) -> None:
    """Makes calls of both kinds that need gRPC's thread of the channel."""
    assert _future(pool).result() == b"a"
    assert list(_stream(pool)) == [b"0", b"1", b"2"]


def test_a_cancel_that_waits_for_a_lock_holds_up_nothing_else(server: Server, make_pool: PoolMaker) -> None:
    """A dropped call is cancelled on a thread that may get stuck, while the pool's worker goes on."""
    pool = make_pool(server.channel, max_size=1)
    with pool.acquire() as lease:
        channel: Any = lease._channel.channel
        (lock,) = (it for it in gc.get_referents(*gc.get_referents(channel._channel)) if hasattr(it, "notify_all"))
        call = _stream(lease)
        next(call)
        done = threading.Event()
        with lock:
            del call
            gc.collect()
            pool._driver.defer(done.set)
            assert done.wait(LONG)
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.usefixtures("clock")
def test_a_connection_that_may_lack_its_thread_is_replaced_at_once(server: Server, make_pool: PoolMaker) -> None:
    """A call waits for nothing but the new connection: the clock stands still."""
    pool = make_pool(server.channel, max_size=1)
    pool.open()
    handler = RaisesAt(1, lambda frame: frame.f_code.co_qualname.startswith("_channel_managed_call_management."))
    sys.setprofile(handler)
    with pytest.raises(TimeLimitError):
        _future(pool)
    assert background(lambda: pool.unary_unary(ECHO)(b"a")).result(LONG) == b"a"
    assert pool.stats().opened == 2
