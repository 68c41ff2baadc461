"""Puts a load of calls on a channel, from threads, and measures it."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from ..._demo.tally import named
from ..._demo.tcp import count_connections
from ..._demo.watch import pauses
from .._failure import CommandError
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
    connections = _Connections(plan.port)

    def glance() -> None:
        tally.digest()
        connections.look()
        told(tally)

    complete = False
    with contextlib.suppress(KeyboardInterrupt):
        _run(_Load(make(), callers, plan, tally), tally, glance)
        connections.wait_until_gone()
        complete = True
    tally.digest(last=True)
    return Result(way, callers, tally, connections.opened, complete)


def _run(load: _Load, tally: Tally, glance: Callable[[], None]) -> None:
    patience = 0.0
    try:
        load.start()
        while not tally.is_over():
            time.sleep(_GLANCE)
            glance()
        patience = _PATIENCE
    finally:
        load.end(patience)


class _Load:
    """Threads that call."""

    def __init__(self, channel: grpc.Channel, callers: int, plan: Plan, tally: Tally) -> None:
        self._channel, self._tally = channel, tally
        call = _call(channel, plan.method, plan.timeout)
        self._threads = [
            threading.Thread(target=_keep_calling, args=(call, tally), daemon=True) for _ in range(callers)
        ]

    def start(self) -> None:
        """Starts them.

        Raises:
            CommandError: The system has not so many threads.
        """
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:
                told = f"{len(self._threads)} callers need a thread each; after {number}: {error}"
                raise CommandError(f"--concurrency: {told}") from error
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


class _Connections:
    """Those of a port, counted from outside, and how many there are more than at the beginning."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._before = self._peak = self._count()

    @property
    def opened(self) -> int | None:
        """The most at once; `None` if the system does not tell."""
        return None if self._before is None or self._peak is None else self._peak - self._before

    def look(self) -> None:
        now = self._count()
        if now is not None and self._peak is not None:
            self._peak = max(self._peak, now)

    def wait_until_gone(self) -> None:
        """Waits a moment until there are no more than at the beginning, with which the next way is to begin."""
        # Some releases of gRPC close connections only when their channels are collected.
        gc.collect()
        for pause in pauses(lambda: self._before is None or (self._count() or 0) <= self._before, _PATIENCE):
            time.sleep(pause)

    def _count(self) -> int | None:
        return None if self._port is None else count_connections(self._port)
