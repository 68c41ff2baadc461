"""Puts a load of calls on a channel, from threads, and measures it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from ..._demo.tcp import count_connections
from ..._demo.watch import pauses
from ..._status import code_of, is_refused_stream
from .methods import Method
from .result import Plan, Result
from .tally import Tally

_GLANCE = 0.05
_PATIENCE = 2.0

Told = Callable[[Tally], None]


def measure(way: str, make: Callable[[], grpc.Channel], callers: int, plan: Plan, told: Told) -> Result:
    """Has so many threads call, one call after the other.

    Args:
        way: The way's name.
        make: Makes the channel.
        callers: How many.
        plan: What to call, and for how long.
        told: Called every so often with what was counted so far.

    Returns:
        What was counted. An interruption ends it early, and makes it incomplete.
    """
    tally = Tally(plan.warmup, plan.duration)
    before = _connections(plan.port)
    load = _Load(make(), callers, plan, tally)
    peak, complete = before, True
    try:
        load.start()
        while not tally.is_over():
            time.sleep(_GLANCE)
            peak = _more(peak, _connections(plan.port))
            tally.digest()
            told(tally)
    except KeyboardInterrupt:
        complete = False
    finally:
        load.end(_PATIENCE if complete else 0.0)
    tally.digest(last=True)
    _wait_for(plan.port, before)
    opened = None if peak is None or before is None else peak - before
    return Result(way, callers, tally, opened, complete)


class _Load:
    """Threads that call."""

    def __init__(self, channel: grpc.Channel, callers: int, plan: Plan, tally: Tally) -> None:
        self._channel, self._tally = channel, tally
        call = _call(channel, plan.method, plan.timeout)
        self._threads = [
            threading.Thread(target=_keep_calling, args=(call, tally), daemon=True) for _ in range(callers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._tally.begin()

    def end(self, patience: float) -> None:
        """Ends them: what runs longer than `patience` is cancelled."""
        self._tally.stop()
        deadline = time.monotonic() + patience
        self._join(deadline)
        self._channel.close()
        self._join(time.monotonic() + _PATIENCE)

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


def _keep_calling(call: Callable[[], object], tally: Tally) -> None:
    while not tally.is_over():
        began = time.perf_counter()
        failure = None
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is counted
            failure = named(error)
        tally.note(began, failure)


def _call(channel: grpc.Channel, method: Method, timeout: float) -> Callable[[], object]:
    """Makes one call to its end. Answers are not understood, only received."""
    if not method.streams:
        unary: Any = channel.unary_unary(method.path)
        return lambda: unary(method.request, timeout=timeout)
    stream: Any = channel.unary_stream(method.path)

    def read_all() -> None:
        for _ in stream(method.request, timeout=timeout):
            pass

    return read_all


def call_once(channel: grpc.Channel, method: Method, timeout: float) -> None:
    """Makes one call, for what it raises."""
    _call(channel, method, timeout)()


def named(error: Exception) -> str:
    """A short name for what a call failed with."""
    if isinstance(error, grpc.RpcError) and (code := code_of(error)) is not None:
        return code.name + (" (stream refused)" if is_refused_stream(error) else "")
    return type(error).__name__


def _connections(port: int | None) -> int | None:
    return None if port is None else count_connections(port)


def _more(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _wait_for(port: int | None, count: int | None) -> None:
    """Waits a moment until there are no more connections than `count`, so that the next way begins with none."""
    gc.collect()
    for pause in pauses(lambda: count is None or (_connections(port) or 0) <= count, _PATIENCE):
        time.sleep(pause)
