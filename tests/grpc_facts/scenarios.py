"""What is done on threads with a gRPC that has other names; run by `renaming`. Each returns what JSON can carry."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import grpc.experimental

import grpcpool
from grpcpool import PoolConfig, isolated
from grpcpool._sync.failed_call import not_started
from support import call_server as support
from support import ways
from support.connections import connections_to

LONG = 10.0


_SOON = 2.0


# gRPC notices only when it sends the call.
NOT_METADATA: Any = ((1, "x"),)

# Pools that last until the process ends.
_LEFT_OPEN: list[grpcpool.ChannelPool] = []


def happens(what: Callable[[], bool], seconds: float = _SOON) -> bool:
    """Whether that is so before the time is over."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def calls(target: str) -> Any:
    """Makes a call in each way; how the connection is watched."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        for way in ways.WAYS:
            answer = way.finish(way.begin(pool))
            expected = [b"0", b"1", b"2"] if way.streams_out else b"0"
            assert (answer[0] if way.how == "with_call" else answer) == expected, (way, answer)
        gc.collect()
        assert happens(lambda: pool.stats().in_flight == 0)
        (slot,) = pool._driver.machine.fleet.slots
        return type(slot.channel._connectivity).__name__


def registered_or_not(target: str) -> Any:
    """Calls a registered method; whether it was registered with the connection, and the answer."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        multicallable: Any = pool.unary_unary(support.UU, _registered_method=True)
        answer = multicallable(b"ok", timeout=LONG)
        (slot,) = pool._driver.machine.fleet.slots
        return slot.channel._may_register, repr(answer)


def half_imported(target: str) -> Any:
    """Makes an error before gRPC's module is whole, and one after; whether each is of gRPC's own class."""
    sys.modules["grpc._channel"] = types.ModuleType("grpc._channel")
    try:
        early = not_started(grpc.StatusCode.CANCELLED, "early", None)
    finally:
        del sys.modules["grpc._channel"]
    with grpc.insecure_channel(target):
        late = not_started(grpc.StatusCode.CANCELLED, "late", None)
    return ["_InactiveRpcError" in str(type(error).__mro__) for error in (early, late)]


def connecting(target: str) -> Any:
    """Notices when a server is missing, and when it is there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        config = PoolConfig(connect_timeout=1)
        with grpcpool.insecure_channel(nowhere, config=config) as pool:
            error = _error_of(pool, timeout=5)
    return [error.code().name, calls(target)]


def close_within_callback(target: str) -> bool:
    """Whether `close()` in a done callback returns, though another call runs on the same connection."""
    pool = grpcpool.insecure_channel(target, config=PoolConfig(max_size=1, close_grace=5))
    hold: Any = pool.unary_unary(support.UU).future(b"hold:within", timeout=LONG)
    returned = threading.Event()

    def close(_: object) -> None:
        pool.close(0)
        returned.set()

    quick: Any = pool.unary_unary(support.UU).future(b"ok", timeout=LONG)
    quick.add_done_callback(close)
    closed = returned.wait(_SOON)
    hold.cancel()
    return closed


class SignalError(Exception):
    """What a signal handler raises."""


def interrupted_start(target: str, before: str) -> Any:
    """A handler raises while a future begins.

    Returns:
        Whether the connection is replaced, and another future's answer: the first on the new one, or, without that,
        nothing; and whether threads and connections are gone after the close.
    """
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        pool.open()
        echo: Any = pool.unary_unary(support.UU)
        _begin_interrupted(echo, before)
        replaced = happens(lambda: pool.stats().closed["lost"] == 1, seconds=5)
        answer = repr(echo.future(b"ok").result(LONG)) if replaced else ""
    port = int(target.rpartition(":")[2])
    gone = replaced and happens(lambda: not connections_to(port) and threading.active_count() == 1)
    return replaced, answer, gone


def interrupted_beside_another(target: str) -> list[Any]:
    """A handler raises while a future begins beside another; how that ends, and if nothing is left of the two."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        pool.open()
        echo: Any = pool.unary_unary(support.UU)
        other = echo.future(b"hold:other", timeout=_SOON)
        _begin_interrupted(echo, "the call is counted")
        code = other.exception(LONG).code().name
        return [code, happens(lambda: pool.stats().closed["lost"] == 1 and not pool.stats().in_flight)]


def _begin_interrupted(multicallable: Any, before: str) -> None:
    def interrupt(frame: types.FrameType, event: str, _: Any) -> Any:
        if before == "the thread is started":
            is_there = event == "call" and frame.f_code is threading.Thread.start.__code__
        else:
            # gRPC's core has the call, which is counted next.
            is_there = event == "line" and frame.f_code.co_name == "create" and "call" in frame.f_locals
        if is_there:
            sys.settrace(None)
            raise SignalError
        return interrupt

    sys.settrace(interrupt)
    try:
        multicallable.future(b"ok")
    except SignalError:
        pass
    finally:
        sys.settrace(None)


class _OtherCondition(threading.Condition):
    """As a later gRPC may use."""


def interrupted_lock(target: str, other_lock: bool) -> list[bool]:
    """A handler raises as the lock of a channel is released. Whether it came to that; and if a future ends then."""
    if other_lock:
        compiled: Any = sys.modules["grpc._cython.cygrpc"]
        compiled.threading = types.SimpleNamespace(**{**vars(threading), "Condition": _OtherCondition})
    raised = []

    def interrupt(frame: types.FrameType, event: str, _: Any) -> None:
        user = frame.f_back and frame.f_back.f_globals.get("__name__")
        if event == "call" and frame.f_code is threading.Condition.__exit__.__code__ and user == "grpc._channel":
            raised.append(True)
            sys.setprofile(None)
            raise SignalError

    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool, pool.acquire() as lease:
        streams: Any = lease.unary_stream(support.US)
        call = streams(b"hold:interrupted", timeout=LONG)
        assert next(call) == b"0"
        sys.setprofile(interrupt)
        try:
            call.cancel()
        except SignalError:
            pass
        finally:
            sys.setprofile(None)
        answers: list[bytes] = []
        unary: Any = lease.unary_unary(support.UU)
        thread = threading.Thread(
            target=lambda: answers.append(unary.future(b"ok", timeout=LONG).result()), daemon=True
        )
        thread.start()
        return [bool(raised), happens(lambda: bool(answers))]


def _raise(_: Any) -> NoReturn:
    raise ArithmeticError("a deserializer failed, as the test wants")


def failed_stream(target: str, single_threaded: bool) -> Any:
    """What its reader gets of a stream whose deserializer raises; and whether its place is free, held and dropped."""
    pool = _pool_of_streams(target, single_threaded=single_threaded)
    call = _stream(pool, b"hold:failed", _raise, single_threaded=single_threaded)
    code = None
    try:
        next(call)
    except grpc.RpcError as error:
        said: Any = error
        code = said.code().name
        del error, said
    while_held = happens(lambda: pool.stats().in_flight == 0)
    del call
    gc.collect()
    when_dropped = happens(lambda: pool.stats().in_flight == 0)
    unary: Any = pool.unary_unary(support.UU)
    assert unary(b"ok", timeout=LONG) == b"0"
    return [code, while_held, when_dropped]


def closed_handle(target: str) -> tuple[bool, str]:
    """Whether a blocking call was cancelled by the close of its handle; and how it ended, at the latest by itself."""
    mine, others = grpcpool.shared_channel(target), grpcpool.shared_channel(target)
    ended: list[str] = []

    def call() -> None:
        unary: Any = mine.unary_unary(support.UU)
        try:
            unary(b"hold:blocked", timeout=2 * _SOON)
        except grpc.RpcError as error:
            said: Any = error
            ended.append(said.code().name)

    thread = threading.Thread(target=call)
    thread.start()
    assert happens(lambda: mine.stats().in_flight == 1)
    mine.close()
    cancelled = ended == ["CANCELLED"]
    thread.join(LONG)
    others.close()
    return cancelled, ended[0]


def dropped_stream(target: str, single_threaded: bool) -> bool:
    """Whether the place of a stream is free when it was half read, and is dropped."""
    pool = _pool_of_streams(target, single_threaded=single_threaded)
    call = _stream(pool, b"hold:dropped", None, single_threaded=single_threaded)
    assert next(call) == b"0"
    del call
    gc.collect()
    return happens(lambda: pool.stats().in_flight == 0)


def connections_after_drop(target: str) -> int:
    """How many connections are left when a single-threaded stream was half read, and is dropped."""
    with _pool_of_streams(target, single_threaded=True) as pool:
        call = _stream(pool, b"hold:dropped", None, single_threaded=True)
        assert next(call) == b"0"
        del call
        gc.collect()
        assert happens(lambda: pool.stats().in_flight == 0)
    port = int(target.rpartition(":")[2])
    happens(lambda: not connections_to(port))
    return connections_to(port)


def raising_callback(target: str) -> list[bool]:
    """Whether a call to which a callback was added that raises is of gRPC's class, and whether the next call ends."""
    kept = []
    with _pool_of_streams(target, single_threaded=False) as pool:
        for adder in ("add_callback", "add_done_callback"):
            call = _stream(pool, b"hold:raising", None, single_threaded=False)
            getattr(call, adder)(lambda *_: sys.exit())
            kept.append(type(call) is sys.modules[type(call).__module__]._MultiThreadedRendezvous)
            assert next(call) == b"0"
            call.cancel()
            following: Any = pool.unary_unary(support.UU).future(b"ok", timeout=LONG)
            kept.append(following.result(LONG) == b"0")
        assert happens(lambda: pool.stats().in_flight == 0)
    return kept


def _pool_of_streams(target: str, *, single_threaded: bool) -> grpcpool.ChannelPool:
    option = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, int(single_threaded))
    pool = grpcpool.ChannelPool(lambda: grpc.insecure_channel(target, isolated([option])), PoolConfig(max_size=1))
    pool.open()
    return pool


def _stream(pool: grpcpool.ChannelPool, command: bytes, deserializer: Any, *, single_threaded: bool) -> Any:
    """A stream of gRPC's own: that of a call whose request may be sent again is in the pool's own call."""
    if not single_threaded:
        bidirectional: Any = pool.stream_stream(support.SS, None, deserializer)
        return bidirectional(iter([command]))
    with pool.acquire(streams=1) as lease:
        unary: Any = lease.unary_stream(support.US, None, deserializer)
        return unary(command)


def _error_of(channel: grpc.Channel, timeout: float = LONG) -> Any:
    unary: Any = channel.unary_unary(support.UU)
    try:
        unary(b"fail", timeout=timeout)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call has not failed")


def errors(target: str) -> Any:
    """What the pool raises where no call was made: its code, its bases, and whether it is of gRPC's own class."""
    with grpc.insecure_channel(target) as channel:
        own = type(_error_of(channel))
    full = grpcpool.insecure_channel(target, config=PoolConfig(max_size=1, max_streams=1, acquire_timeout=0.01))
    with full as pool, pool.acquire(timeout=LONG):
        raised = [_error_of(pool, timeout=None) for _ in range(2)]  # type: ignore[arg-type]
    kinds = [isinstance(raised[0], kind) for kind in (grpc.RpcError, grpc.Call, grpc.Future, own)]
    assert type(raised[0]) is type(raised[1])
    return [raised[0].code().name, raised[0].details()[:4], kinds]


def failing(target: str, command: str, service: str) -> Any:
    """The code of a call in each way, and how many refusals the pool has counted."""
    return _fail(target, command, service, ("call", "with_call", "future", "stream"))


def failing_one(target: str, command: str, service: str, way: str) -> Any:
    """The same of one way."""
    codes, refused = _fail(target, command, service, (way,))
    return [codes[way], refused]


def _fail(target: str, command: str, service: str, ways: tuple[str, ...]) -> tuple[dict[str, str], int]:
    codes = {}
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=2, min_size=2)) as pool:
        pool.open()
        unary: Any = pool.unary_unary(f"{service}/Uu")
        stream: Any = pool.unary_stream(f"{service}/Us")
        works: dict[str, Callable[[], Any]] = {
            "call": lambda: unary(command.encode(), timeout=LONG),
            "with_call": lambda: unary.with_call(command.encode(), timeout=LONG),
            "future": lambda: unary.future(command.encode(), timeout=LONG).result(LONG),
            "stream": lambda: list(stream(command.encode(), timeout=LONG)),
        }
        for way in ways:
            try:
                works[way]()
            except grpc.RpcError as error:
                said: Any = error
                codes[way] = said.code().name
                del error, said
            else:
                codes[way] = "OK"
        gc.collect()
        assert happens(lambda: pool.stats().in_flight == 0)
        return codes, pool.stats().refused_streams


def late_metadata(target: str, command: str, service: str) -> Any:
    """How a stream ends when gRPC notes its end first, and its initial metadata a little later."""
    from grpc import _channel  # noqa: PLC0415 -- as late as gRPC itself does

    private: Any = _channel
    handle = private._handle_event

    def handle_late(event: Any, state: Any, *more: Any) -> Any:
        metadata = [each for each in event.batch_operations if "InitialMetadata" in type(each).__name__]
        if not any(hasattr(each, "initial_metadata") for each in metadata) or state.code is not None:
            return handle(event, state, *more)

        def later() -> None:
            with state.condition:
                handle(event, state, *more)
                state.condition.notify_all()

        threading.Timer(0.1, later).start()
        return []

    # Not closed: gRPC's thread, which does not learn that the call is over, would read from a queue that is gone.
    pool = grpcpool.insecure_channel(target, config=PoolConfig(max_size=2, min_size=2))
    _LEFT_OPEN.append(pool)
    pool.open()
    private._handle_event = handle_late
    stream: Any = pool.unary_stream(f"{service}/Us")
    called: list[Any] = []
    call = stream(command.encode(), timeout=LONG)
    call.add_done_callback(called.append)
    try:
        answer = len(list(call))
    except grpc.RpcError:
        answer = 0
    assert happens(lambda: called == [call])
    assert happens(lambda: pool.stats().in_flight == 0)
    return [answer, call.code().name]


def registered(target: str) -> bool:
    """Makes calls by stubs that register their methods."""
    with grpcpool.insecure_channel(target) as pool, pool.acquire() as lease:
        for channel in (pool, lease):
            make: Any = channel
            unary = make.unary_unary(support.UU, None, None, _registered_method=True)
            assert unary(b"ok", timeout=LONG) == b"0"
            assert list(make.unary_stream(support.US, None, None, _registered_method=True)(b"ok")) == [b"0", b"1", b"2"]
    asyncio.run(_registered(target))
    return True


async def _registered(target: str) -> None:
    async with grpcpool.aio.insecure_channel(target) as pool, pool.acquire() as lease:
        for channel in (pool, lease):
            make: Any = channel
            assert await make.unary_unary(support.UU, None, None, _registered_method=True)(b"ok") == b"0"
