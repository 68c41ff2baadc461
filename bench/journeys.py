"""How much code one has to read to follow a call: modules, functions, and changes of module along four journeys.

Each journey runs once, on fakes and on a clock that stands still. Every call of a Python function of the pool is
recorded, on any thread. What counts are the modules and the functions in the trace, and how often two calls in a row
are of different modules. `grpcpool.testing` does not count. Neither do lambdas, comprehensions, and generators and
coroutines that continue.

The figures are the same in every run. A journey goes step by step, and each step ends when all threads are idle.
Threads switch only where one of them waits. Which of several threads then runs first is still open, so the calls of
one thread in one step are kept together: first this thread's, then those of the others by their names.
``--calls`` prints the trace.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import opcode
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any, NamedTuple

import grpc

import grpcpool.aio
from _results import Row, keep
from grpcpool import testing

_PACKAGE = "grpcpool"
_LEFT_OUT = "grpcpool.testing"
_METHOD = "/bench.Bench/Echo"

# As gRPC reports that a server refused a stream (`REFUSED_STREAM`).
_REFUSED = "Received RST_STREAM with error code 7"
_DOWN = "failed to connect to all addresses"

# Seconds for which a trace must not have grown until the threads are taken to be idle, and that this may take.
_QUIET, _PATIENCE = 0.1, 30.0

_ONE = grpcpool.PoolConfig(min_size=1, max_size=1)
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _Call(NamedTuple):
    """A call of a function; the thread is `""` for the main one."""

    step: int
    thread: str
    module: str
    code: CodeType


class Trace:
    """The calls of the package's functions, by all threads."""

    def __init__(self) -> None:
        """Starts empty."""
        self._seen: list[_Call] = []
        self._step = 0
        self._records = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees this thread, and those that are started within the block."""
        interval = sys.getswitchinterval()
        # Longer than any journey.
        sys.setswitchinterval(1000.0)
        gc.disable()
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            gc.enable()
            sys.setswitchinterval(interval)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records what is called within the block."""
        self._records = True
        try:
            yield
        finally:
            self._records = False

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Within a block that is recorded: leaves out what only the measurement calls."""
        records, self._records = self._records, False
        try:
            yield
        finally:
            self._records = records

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not self._records:
            return
        module = frame.f_globals.get("__name__", "")
        if _is_within(module, _PACKAGE) and not _is_within(module, _LEFT_OUT) and _is_call(frame):
            thread = threading.current_thread()
            other = "" if thread is threading.main_thread() else thread.name
            self._seen.append(_Call(self._step, other, module, frame.f_code))

    def settle(self) -> None:
        """Waits until the threads are idle, which ends a step."""
        seen = -1
        deadline = time.monotonic() + _PATIENCE
        while seen != len(self._seen):
            if time.monotonic() > deadline:
                raise TimeoutError("the threads of a journey do not come to rest")
            seen = len(self._seen)
            time.sleep(_QUIET)
        self._step += 1

    @property
    def calls(self) -> list[_Call]:
        """In order; those of one thread in one step are together."""
        return sorted(self._seen, key=lambda call: (call.step, call.thread))

    @property
    def modules(self) -> int:
        """How many modules it passes."""
        return len({call.module for call in self._seen})

    @property
    def functions(self) -> int:
        """How many functions it passes."""
        return len({call.code for call in self._seen})

    @property
    def changes(self) -> int:
        """How often a call is of another module than the one before."""
        return sum(before.module != after.module for before, after in pairwise(self.calls))


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_call(frame: FrameType) -> bool:
    """Whether a function with a name is called, and not a generator or coroutine continued."""
    code = frame.f_code
    if code.co_name.startswith("<"):
        return False
    if not code.co_flags & _GENERATORS:
        return True
    # Each point at which it may continue is marked, by another argument than its start.
    at, start = frame.f_lasti, 0
    instruction, argument = code.co_code[at : at + 2]
    return opcode.opname[instruction] == "RESUME" and argument == start


def _until(ready: Callable[[], Any]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("a journey got stuck")
        time.sleep(_QUIET / 10)


# --- the journeys -----------------------------------------------------------------------------------------------


def blocking_call(trace: Trace) -> None:
    """A blocking unary call, for which there is room."""
    with testing.manual_clock(), grpcpool.ChannelPool(testing.FakeFactory(), _ONE) as pool:
        call = pool.unary_unary(_METHOD)
        call(b"before")
        trace.settle()
        with trace.recording():
            call(b"request")
            trace.settle()


def queued_future(trace: Trace) -> None:
    """A `future()` that waits for the only stream, is granted it, is refused by the server, and is sent again."""
    factory = testing.FakeFactory(lambda: testing.FakeChannel(holds_calls=True))
    with testing.manual_clock() as clock, grpcpool.ChannelPool(factory, _ONE.replace(max_streams=1)) as pool:
        pool.open()
        call = pool.unary_unary(_METHOD)
        other = call.future(b"other")
        trace.settle()
        [native] = factory.made
        with trace.recording():
            future = call.future(b"request")
            native.calls[0].finish([b"response"])
            _until(lambda: native.calls[1:])
            trace.settle()
            native.calls[1].fail(grpc.StatusCode.UNAVAILABLE, _REFUSED)
            trace.settle()
            _let_time_pass(trace, clock, lambda: native.calls[2:])
            native.calls[-1].finish([b"response"])
            trace.settle()
            future.result()
        other.result()


def _let_time_pass(trace: Trace, clock: testing.ManualClock, enough: Callable[[], Any]) -> None:
    for _ in range(10):
        if enough():
            return
        clock.advance(0.5)
        trace.settle()
    raise TimeoutError("a journey got stuck")


def dropped_stream(trace: Trace) -> None:
    """On asyncio, a stream of responses that is dropped after the first of them."""

    async def journey() -> None:
        factory = testing.aio.FakeFactory(lambda: testing.aio.FakeChannel(holds_calls=True))
        with testing.manual_clock():
            async with grpcpool.aio.ChannelPool(factory, _ONE) as pool:
                await pool.open()
                method = pool.unary_stream(_METHOD)
                before = method(b"before")
                [native] = factory.made
                native.calls[0].finish([b"response"])
                async for _ in before:
                    pass
                del before
                with trace.recording():
                    call: Any = method(b"request")
                    native.calls[1].send(b"response")
                    async for _ in call:
                        break
                    del call
                    await _free(trace, pool)

    asyncio.run(journey())


async def _free(trace: Trace, pool: grpcpool.aio.ChannelPool) -> None:
    """Gives the loop turns until no call is in flight."""
    for _ in range(100):
        await asyncio.sleep(0)
        with trace.pausing():
            if not pool.stats().in_flight:
                return
    raise TimeoutError("a dropped call still has its place")


def lost_lease(trace: Trace) -> None:
    """A lease whose connection goes down and comes back, and the lease after it."""
    factory = testing.FakeFactory()
    with testing.manual_clock() as clock, grpcpool.ChannelPool(factory, _ONE) as pool:
        pool.open()
        pool.acquire().release()
        trace.settle()
        [native] = factory.made

        def down(_: Any) -> Any:
            raise testing.error(grpc.StatusCode.UNAVAILABLE, _DOWN)

        with trace.recording():
            lease = pool.acquire()
            native.handlers[_METHOD] = down
            native.set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
            try:
                lease.unary_unary(_METHOD)(b"request")
            except grpc.RpcError:
                lease.release()
            trace.settle()
            native.set_state(grpc.ChannelConnectivity.READY)
            clock.advance(0.3)
            trace.settle()
            pool.acquire().release()
            trace.settle()


_JOURNEYS = {
    "a. blocking unary call": blocking_call,
    "b. future() that waits and is refused once": queued_future,
    "c. asyncio stream, dropped half read": dropped_stream,
    "d. lease, connection lost and recovered": lost_lease,
}


def _report(traces: dict[str, Trace], *, calls: bool) -> None:
    width = max(map(len, traces))
    print(f"{'journey':{width}}  modules  functions  changes of module")
    for name, trace in traces.items():
        print(f"{name:{width}}  {trace.modules:7}  {trace.functions:9}  {trace.changes:17}")
    if not calls:
        return
    for name, trace in traces.items():
        print(f"\n{name}")
        for call in trace.calls:
            thread = f"  ({call.thread})" if call.thread else ""
            print(f"  {call.module}:{call.code.co_qualname}{thread}")


def main() -> None:
    """Traces and reports."""
    parser = argparse.ArgumentParser(description="Counts the modules and functions that four journeys pass.")
    parser.add_argument("--calls", action="store_true", help="print the calls of each journey in order")
    arguments = parser.parse_args()
    traces = {}
    for name, journey in _JOURNEYS.items():
        traces[name] = trace = Trace()
        with trace.watching():
            journey(trace)
    _report(traces, calls=arguments.calls)
    keep(
        Row(panel="journeys", what=name, ours="pool", our_value=trace.functions, unit="functions")
        for name, trace in traces.items()
    )


if __name__ == "__main__":
    main()
