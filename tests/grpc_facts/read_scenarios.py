"""What is done with streams whose reads a signal handler interrupts; see `scenarios`."""

from __future__ import annotations

import linecache
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import grpc

import grpcpool
from grpc_facts.scenarios import LONG, SignalError, happens
from grpcpool import PoolConfig
from grpcpool._grpc.interrupted_calls import unlock_left_locked
from grpcpool._sync import driver
from support import call_server as support
from support.connections import connections_to

# Pools that are not to be closed when they are collected, either.
_LEFT_OPEN: list[grpcpool.ChannelPool] = []


def interrupted_read(target: str, when: str) -> list[Any]:
    """A handler raises as a read begins. What is read after that, and whether gRPC's thread of the channel ends."""
    reading: list[Any] = []
    compiled: Any = sys.modules["grpc._cython.cygrpc"]

    def interrupt(frame: types.FrameType, event: str, _: Any) -> Any:
        if event != "line" or frame.f_code.co_name != "_next":
            return interrupt
        stream = frame.f_locals["self"]
        if compiled.OperationType.receive_message in _due_to(stream):
            fails = when == "it fails to begin"
            if fails and not reading:
                stream._call.cancel(1, "as the test wants")
                assert happens(_waits_to_handle_an_event)
            reading.append(stream)
            if not fails or "operating" in frame.f_locals:
                sys.settrace(None)
                raise SignalError
        return interrupt

    def unlock(error: BaseException | None) -> None:
        """Before the pool does anything else, all of the stream is over, except for the message that is noted."""
        if when == "its stream ends":
            reading[0].cancel()
            assert happens(lambda: len(_due_to(reading[0])) == 1)
        unlock_left_locked(error)

    driver.unlock_left_locked = unlock  # type: ignore[attr-defined]
    pool = grpcpool.insecure_channel(target, config=PoolConfig(max_size=1))
    streams: Any = pool.unary_stream(support.US)
    call = streams(b"ok" if when == "it begins" else b"hold:read", timeout=LONG)
    if when == "it fails to begin":
        assert next(call) == b"0"
    sys.settrace(interrupt)
    try:
        next(call)
    except SignalError:
        pass
    finally:
        sys.settrace(None)
    return [_the_rest_of(call), _closes(pool)]


def _grpcs_thread_ends() -> bool:
    return happens(lambda: not any(map(_is_of_grpc, threading.enumerate())))


def _closes(pool: grpcpool.ChannelPool) -> bool:
    """Closes the pool if gRPC's thread ends; returns whether it does. If not, what the close frees is still used."""
    if ends := _grpcs_thread_ends():
        pool.close()
    else:
        _LEFT_OPEN.append(pool)
    return ends


def _due_to(stream: Any) -> set[Any]:
    """What gRPC has noted to be due to a stream, under whatever name."""
    (due,) = (value for name, value in vars(stream._state).items() if name.endswith("due"))
    return set(due)


def _comes_to(what: str) -> Callable[[types.FrameType, str], bool]:
    return lambda frame, event: event == "line" and what in linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def _interrupt_a_read(
    call: Any, is_there: Callable[[types.FrameType, str], bool], then: Callable[[Any], object] = bool
) -> None:
    """A handler raises where a read of that call is there, once `then` has been done with the stream."""

    def interrupt(frame: types.FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_name == "_next" and is_there(frame, event):
            sys.settrace(None)
            then(frame.f_locals["self"])
            raise SignalError
        return interrupt

    sys.settrace(interrupt)
    try:
        next(call)
    except SignalError:
        return
    finally:
        sys.settrace(None)
    raise AssertionError("it was not interrupted")


def interrupted_within_a_read(target: str) -> list[Any]:
    """A handler raises as a read has made its operation: whether gRPC's thread ends with the stream."""
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        call: Any = pool.unary_stream(support.US)(b"hold:within", timeout=LONG)
        assert next(call) == b"0"
        # What handles the event comes after the operation, within the call that begins it.
        _interrupt_a_read(call, _comes_to(" event_handler,"))
        call.cancel()
        return [_the_rest_of(call), _grpcs_thread_ends()]


def interrupted_beside_a_read(target: str) -> list[Any]:
    """A handler raises as a read begins, while another thread reads.

    Returns:
        What that reads, what a later future answers, and whether gRPC's thread ends.
    """
    read: list[str] = []
    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        call: Any = pool.unary_stream(support.US)(b"hold:beside", timeout=LONG)
        assert next(call) == b"0"
        reader = threading.Thread(target=lambda: read.extend(_the_rest_of(call)))
        reader.start()
        assert happens(lambda: sys._current_frames()[reader.ident or 0].f_code.co_name == "wait")
        _interrupt_a_read(call, _comes_to("._call.operate("))
        call.cancel()
        reader.join()
        answer: Any = pool.unary_unary(support.UU).future(b"ok")
        read.append(repr(answer.result(LONG)))
        return [*read, _grpcs_thread_ends()]


def interrupted_at_the_end(target: str) -> list[Any]:
    """A handler raises as a stream is read whose end is there, but is not taken yet.

    Returns:
        How the stream has ended, and whether the connection ends with the pool.
    """
    deserializing, goes_on = threading.Event(), threading.Event()
    kept: list[Any] = []

    def deserialize(answer: bytes) -> bytes:
        deserializing.set()
        goes_on.wait(LONG)
        return answer

    def end(stream: Any) -> None:
        kept.append(pool.unary_unary(support.UU, response_deserializer=deserialize).future(b"ok", timeout=LONG))
        assert deserializing.wait(LONG)
        stream._call.cancel(1, "as the test wants")
        # Until its events are there.
        time.sleep(0.2)

    with grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        call: Any = pool.unary_stream(support.US)(b"hold:end", timeout=LONG)
        assert next(call) == b"0"
        _interrupt_a_read(call, _comes_to("_common.wait("), end)
        goes_on.set()
        code = call.code().name
    port = int(target.rpartition(":")[2])
    return [code, happens(lambda: not connections_to(port) and threading.active_count() == 1)]


def _waits_to_handle_an_event() -> bool:
    """Whether gRPC's thread of a channel has taken an event, and waits for the lock of its call."""
    return any(frame.f_code.co_name == "handle_event" for frame in sys._current_frames().values())


def _is_of_grpc(thread: threading.Thread) -> bool:
    return thread.name.endswith("(_run)")


def _the_rest_of(call: Any) -> list[str]:
    read: list[str] = []
    try:
        read.extend(map(repr, call))
    except grpc.RpcError as error:
        said: Any = error
        read.append(said.code().name)
    return read
