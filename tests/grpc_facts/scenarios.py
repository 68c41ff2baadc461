"""What is done with a gRPC that has other names; run by `renaming`. Each returns what JSON can carry."""

from __future__ import annotations

import asyncio
import contextlib
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
from aio_calls.support_interceptors import Counting, append, of_all_kinds
from grpcpool import PoolConfig, isolated
from grpcpool._sync.failed_call import not_started
from support import aio_pools, aio_ways, ways
from support import call_server as support
from support.loops import settle

_LONG = 10.0
_SOON = 2.0
# gRPC notices only when it sends the call.
_NOT_METADATA: Any = ((1, "x"),)


def _happens(what: Callable[[], bool], seconds: float = _SOON) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# --- sync -----------------------------------------------------------------------------------------------------------


def calls(target: str) -> Any:
    """Makes a call in each way; how the connection is watched."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        for way in ways.WAYS:
            answer = way.finish(way.begin(pool))
            expected = [b"0", b"1", b"2"] if way.streams_out else b"0"
            assert (answer[0] if way.how == "with_call" else answer) == expected, (way, answer)
        gc.collect()
        assert _happens(lambda: pool.stats().in_flight == 0)
        (slot,) = pool._driver.machine.fleet.slots
        return type(slot.channel._connectivity).__name__


def registered_or_not(target: str) -> Any:
    """Calls a registered method; whether it was registered with the connection, and the answer."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        multicallable: Any = pool.unary_unary(support.UU, _registered_method=True)
        answer = multicallable(b"ok", timeout=_LONG)
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
    hold: Any = pool.unary_unary(support.UU).future(b"hold:within", timeout=_LONG)
    returned = threading.Event()

    def close(_: object) -> None:
        pool.close(0)
        returned.set()

    quick: Any = pool.unary_unary(support.UU).future(b"ok", timeout=_LONG)
    quick.add_done_callback(close)
    closed = returned.wait(_SOON)
    hold.cancel()
    return closed


class _SignalError(Exception):
    """What a signal handler raises."""


def interrupted_start(target: str, before: str) -> Any:
    """A handler raises while a future begins; whether the connection is replaced, and a later future's answer."""

    def interrupt(frame: types.FrameType, event: str, _: Any) -> Any:
        if before == "the thread is started":
            is_there = event == "call" and frame.f_code is threading.Thread.start.__code__
        else:
            # gRPC's core has the call, which is counted next.
            is_there = event == "line" and frame.f_code.co_name == "create" and "call" in frame.f_locals
        if is_there:
            sys.settrace(None)
            raise _SignalError
        return interrupt

    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        pool.open()
        echo: Any = pool.unary_unary(support.UU)
        sys.settrace(interrupt)
        try:
            echo.future(b"ok")
        except _SignalError:
            pass
        finally:
            sys.settrace(None)
        replaced = _happens(lambda: pool.stats().closed["lost"] == 1, seconds=5)
        return replaced, repr(echo.future(b"ok").result(_LONG)) if replaced else ""


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
            raise _SignalError

    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool, pool.acquire() as lease:
        streams: Any = lease.unary_stream(support.US)
        call = streams(b"hold:interrupted", timeout=_LONG)
        assert next(call) == b"0"
        sys.setprofile(interrupt)
        try:
            call.cancel()
        except _SignalError:
            pass
        finally:
            sys.setprofile(None)
        answers: list[bytes] = []
        unary: Any = lease.unary_unary(support.UU)
        thread = threading.Thread(
            target=lambda: answers.append(unary.future(b"ok", timeout=_LONG).result()), daemon=True
        )
        thread.start()
        return [bool(raised), _happens(lambda: bool(answers))]


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
    while_held = _happens(lambda: pool.stats().in_flight == 0)
    del call
    gc.collect()
    when_dropped = _happens(lambda: pool.stats().in_flight == 0)
    unary: Any = pool.unary_unary(support.UU)
    assert unary(b"ok", timeout=_LONG) == b"0"
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
    assert _happens(lambda: mine.stats().in_flight == 1)
    mine.close()
    cancelled = ended == ["CANCELLED"]
    thread.join(_LONG)
    others.close()
    return cancelled, ended[0]


def dropped_stream(target: str, single_threaded: bool) -> bool:
    """Whether the place of a stream is free when it was half read, and is dropped."""
    pool = _pool_of_streams(target, single_threaded=single_threaded)
    call = _stream(pool, b"hold:dropped", None, single_threaded=single_threaded)
    assert next(call) == b"0"
    del call
    gc.collect()
    return _happens(lambda: pool.stats().in_flight == 0)


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
            following: Any = pool.unary_unary(support.UU).future(b"ok", timeout=_LONG)
            kept.append(following.result(_LONG) == b"0")
        assert _happens(lambda: pool.stats().in_flight == 0)
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


def _error_of(channel: grpc.Channel, timeout: float = _LONG) -> Any:
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
    with full as pool, pool.acquire(timeout=_LONG):
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
            "call": lambda: unary(command.encode(), timeout=_LONG),
            "with_call": lambda: unary.with_call(command.encode(), timeout=_LONG),
            "future": lambda: unary.future(command.encode(), timeout=_LONG).result(_LONG),
            "stream": lambda: list(stream(command.encode(), timeout=_LONG)),
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
        assert _happens(lambda: pool.stats().in_flight == 0)
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

    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=2, min_size=2)) as pool:
        pool.open()
        private._handle_event = handle_late
        stream: Any = pool.unary_stream(f"{service}/Us")
        called: list[Any] = []
        call = stream(command.encode(), timeout=_LONG)
        call.add_done_callback(called.append)
        try:
            answer = len(list(call))
        except grpc.RpcError:
            answer = 0
        assert _happens(lambda: called == [call])
        assert _happens(lambda: pool.stats().in_flight == 0)
        return [answer, call.code().name]


def registered(target: str) -> bool:
    """Makes calls by stubs that register their methods."""
    with grpcpool.insecure_channel(target) as pool, pool.acquire() as lease:
        for channel in (pool, lease):
            make: Any = channel
            unary = make.unary_unary(support.UU, None, None, _registered_method=True)
            assert unary(b"ok", timeout=_LONG) == b"0"
            assert list(make.unary_stream(support.US, None, None, _registered_method=True)(b"ok")) == [b"0", b"1", b"2"]
    asyncio.run(_registered(target))
    return True


async def _registered(target: str) -> None:
    async with grpcpool.aio.insecure_channel(target) as pool, pool.acquire() as lease:
        for channel in (pool, lease):
            make: Any = channel
            assert await make.unary_unary(support.UU, None, None, _registered_method=True)(b"ok") == b"0"


# --- asyncio --------------------------------------------------------------------------------------------------------


def aio_calls(target: str) -> Any:
    """Makes a call in each way, on a pool and on a lease; and one that fails."""
    return asyncio.run(_aio_calls(target))


async def _aio_calls(target: str) -> Any:
    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        for way in aio_ways.WAYS:
            async with pool.acquire(streams=1) as lease:
                for channel in (pool, lease):
                    assert await way.whole(channel) == ([b"0", b"1", b"2"] if way.streams_out else b"0"), way
        call: Any = pool.unary_unary(support.UU)
        code = None
        try:
            await call(b"fail", timeout=_LONG)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        await aio_pools.at_rest(pool)
        return code


def aio_closed(target: str, below: bool) -> Any:
    """Closes a pool, or the channel `below` it, while calls run; how these end, and how many the channel knew."""
    return asyncio.run(_aio_closed(target, below=below))


async def _aio_closed(target: str, *, below: bool) -> Any:
    channel = grpc.aio.insecure_channel(target, isolated())
    pool = grpcpool.aio.ChannelPool(lambda: channel, PoolConfig(max_size=1))
    await pool.open()
    async with pool.acquire(streams=1) as lease:
        ways = [way for way in aio_ways.WAYS if not way.streams_in]
        begun = [way.begin(each, f"hold:{support.new_tag()}") for way in ways for each in (pool, lease)]
        # GRPC begins them.
        await settle()
        known = len(set(getattr(channel, "_active_calls", ())))
        await (channel if below else pool).close()
        codes = {(await call.code()).name for call in begun}
    await pool.close()
    return [known, sorted(codes)]


def aio_closed_beside_others(target: str, how: str) -> Any:
    """Closes a connection during calls of the pool and of `prime`, whose callbacks raise; how those of the pool end."""
    return asyncio.run(_aio_closed_beside_others(target, how))


async def _aio_closed_beside_others(target: str, how: str) -> Any:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    others = []

    def fails(_: object) -> NoReturn:
        raise ZeroDivisionError

    async def prime(channel: Any) -> None:
        for _ in range(3):
            call = channel.unary_stream(support.US)(f"hold:{support.new_tag()}".encode())
            call.add_done_callback(fails)
            others.append(call)

    config = PoolConfig(max_size=1, prime=prime, drain_timeout=0.1)
    pool = grpcpool.aio.insecure_channel(target, config=config)
    await pool.open()
    begun = [way.begin(pool, f"hold:{support.new_tag()}") for way in aio_ways.WAYS]
    await settle()
    (slot,) = pool._driver.machine.fleet.slots
    if how == "refresh":
        pool.refresh()
    elif how == "close":
        await pool.close()
    else:
        with contextlib.suppress(ZeroDivisionError):
            await slot.channel.channel.close()
    return [(await asyncio.wait_for(call.code(), _LONG)).name for call in begun]


def aio_metadata(target: str) -> Any:
    """What a server sees of the metadata of calls with and without, and with compression."""
    return asyncio.run(_aio_metadata(target))


async def _aio_metadata(target: str) -> Any:
    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        call: Any = pool.unary_unary(support.UU)
        return [
            (await call(b"metadata", metadata=metadata, compression=compression)).decode()
            for metadata in (None, (), (("x-key", "1"), ("x-key", "2")), grpc.aio.Metadata(("x-key", "3")))
            for compression in (None, grpc.Compression.NoCompression, grpc.Compression.Gzip)
        ]


def aio_serialized(target: str) -> bool:
    """Whether a request is serialized before the call; the call must succeed in any case."""
    return asyncio.run(_aio_serialized(target))


async def _aio_serialized(target: str) -> bool:
    seen: list[str] = []

    def serialize(text: str) -> bytes:
        seen.append(text)
        return text.encode()

    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        await pool.open()
        multicallable: Any = pool.unary_unary(support.UU, serialize)
        call = multicallable("hello", timeout=_LONG)
        before = bool(seen)
        await call
        assert seen == ["hello"]
        return before


def aio_unsendable(target: str, stream: bool) -> Any:
    """Whether a call ends that gRPC cannot send: when nothing but a callback waits for it, and when it is awaited."""
    return asyncio.run(_aio_unsendable(target, stream=stream))


async def _aio_unsendable(target: str, *, stream: bool) -> Any:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    way = aio_ways.STREAM if stream else aio_ways.UNARY
    pool = grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1))
    await pool.open()
    ended: list[Any] = []
    call = way.begin(pool, metadata=_NOT_METADATA)
    call.add_done_callback(ended.append)
    await asyncio.sleep(0.5)
    unattended = bool(ended)
    call.cancel()
    awaited = None
    try:
        await way.take(way.begin(pool, metadata=_NOT_METADATA))
    except Exception as error:  # noqa: BLE001 -- gRPC's may be any
        awaited = type(error).__name__
    assert await way.whole(pool)
    await aio_pools.at_rest(pool)
    await pool.close()
    return [unattended, awaited]


def intercepted(target: str) -> Any:
    """Makes a call in each way through interceptors of a pool and of its lease; the classes of the calls."""
    return asyncio.run(_intercepted(target))


async def _intercepted(target: str) -> Any:
    counting = Counting()
    kinds = set()
    pool = grpcpool.aio.insecure_channel(
        target, interceptors=of_all_kinds(counting), config=PoolConfig(max_size=1, max_streams=2)
    )
    async with pool, pool.acquire(streams=1) as lease:
        for way in aio_ways.WAYS:
            for channel in (pool, lease):
                call = way.begin(channel)
                kinds.add(type(call).__module__)
                assert await way.use(call) == ([b"0", b"1", b"2"] if way.streams_out else b"0"), way
                assert await call.code() is grpc.StatusCode.OK
        await _write_while_waiting(pool)
    assert len(counting.methods) == 2 * len(aio_ways.WAYS) + 2
    return sorted(kinds)


async def _write_while_waiting(pool: Any) -> None:
    """Writes to a call that waits for its place; and, without effect, after the end of the writes."""
    writes = next(way for way in aio_ways.WAYS if way.writes and way.streams_out)
    holding = await pool.acquire(streams=1)
    waiting = writes.begin(pool)
    writing = asyncio.ensure_future(writes.send(waiting))
    await settle()
    holding.release()
    await writing
    assert await writes.take(waiting) == [b"0", b"1", b"2"]
    late = writes.begin(pool, "hold:late")
    await late.write(b"hold:late")
    await late.done_writing()
    # gRPC notes it a little later.
    await asyncio.sleep(0.1)
    try:
        await late.write(b"more")
    except asyncio.InvalidStateError:
        late.cancel()
    else:
        raise AssertionError("it was written after the end of the writes")


def appended(target: str) -> int:
    """How often interceptors were called that were appended to the lists of a pool, whose lease has them as well."""
    return asyncio.run(_appended(target))


async def _appended(target: str) -> int:
    counting = Counting()
    async with grpcpool.aio.insecure_channel(target) as pool:
        append(pool, counting)
        async with pool.acquire(streams=1) as lease:
            for way in aio_ways.KINDS:
                await way.whole(pool)
                await way.whole(lease)
    return len(counting.methods)
