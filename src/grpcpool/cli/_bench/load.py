"""Calls a method from many threads over one channel, and measures the calls."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from ..._demo.call_counter import failure_name
from ..._demo.monitor import poll
from ..._demo.tcp_connections import count_connections
from .._errors import CommandError
from .methods import Method
from .recorder import CallRecorder
from .result import Plan, Result

_PROGRESS_INTERVAL = 0.05
_GRACE = 2.0

OnProgress = Callable[[CallRecorder], None]


def measure(way: str, create: Callable[[], grpc.Channel], callers: int, plan: Plan, on_progress: OnProgress) -> Result:
    """Measures one way to call with `callers` threads, which make one call after the other.

    Args:
        way: The way's name.
        create: Creates the channel.
        callers: The number of threads.
        plan: What to call, and for how long.
        on_progress: Called regularly with the numbers so far.

    Returns:
        The measured numbers. An interruption ends the measurement early, and marks the result as incomplete.
    """
    recorder = CallRecorder(plan.warmup, plan.duration)
    connections = _Connections(plan.port)

    def update_progress() -> None:
        recorder.process()
        connections.update_peak()
        on_progress(recorder)

    complete = False
    with contextlib.suppress(KeyboardInterrupt):
        _run(_CallerThreads(create(), callers, plan, recorder), recorder, update_progress)
        connections.wait_until_closed()
        complete = True
    recorder.process(last=True)
    return Result(way, callers, recorder, connections.opened, complete)


def _run(threads: _CallerThreads, recorder: CallRecorder, update_progress: Callable[[], None]) -> None:
    grace = 0.0
    try:
        threads.start()
        while not recorder.is_over():
            time.sleep(_PROGRESS_INTERVAL)
            update_progress()
        grace = _GRACE
    finally:
        threads.end(grace)


class _CallerThreads:
    """The threads that make the calls."""

    def __init__(self, channel: grpc.Channel, callers: int, plan: Plan, recorder: CallRecorder) -> None:
        self._channel, self._tally = channel, recorder
        call = _call(channel, plan.method, plan.timeout)
        self._threads = [
            threading.Thread(target=_keep_calling, args=(call, recorder), daemon=True) for _ in range(callers)
        ]

    def start(self) -> None:
        """Starts the threads.

        Raises:
            CommandError: The system cannot start that many threads.
        """
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:
                reason = f"{len(self._threads)} callers need a thread each, but only {number} started: {error}"
                raise CommandError(f"--concurrency: {reason}") from error
        self._tally.begin()

    def end(self, grace: float) -> None:
        """Ends the threads; cancels calls that run for longer than `grace` seconds."""
        self._tally.stop()
        deadline = time.monotonic() + grace
        self._join(deadline)
        self._channel.close()
        self._join(time.monotonic() + _GRACE)

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


def _keep_calling(call: Callable[[], object], recorder: CallRecorder) -> None:
    while not recorder.is_over():
        began = time.perf_counter()
        failure = None
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- every failure is counted
            failure = failure_name(error)
        recorder.record(began, failure)


def _call(channel: grpc.Channel, method: Method, timeout: float) -> Callable[[], object]:
    """Returns a function that makes one complete call. Responses are received, but not parsed."""
    if not method.streams:
        unary: Any = channel.unary_unary(method.path)
        return lambda: unary(method.request, timeout=timeout)
    stream: Any = channel.unary_stream(method.path)

    def read_all() -> None:
        for _ in stream(method.request, timeout=timeout):
            pass

    return read_all


def call_once(channel: grpc.Channel, method: Method, timeout: float) -> None:
    """Makes one call, and raises its error if it fails."""
    _call(channel, method, timeout)()


class _Connections:
    """Counts how many more connections to a port there are than at the beginning, as the operating system sees them."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._before = self._peak = self._count()

    @property
    def opened(self) -> int | None:
        """The highest number at once; `None` if the system does not report connections."""
        return None if self._before is None or self._peak is None else self._peak - self._before

    def update_peak(self) -> None:
        now = self._count()
        if now is not None and self._peak is not None:
            self._peak = max(self._peak, now)

    def wait_until_closed(self) -> None:
        """Waits a moment for the connections to close, so that the next measurement starts without them."""
        # Some releases of gRPC close connections only when their channels are garbage collected.
        gc.collect()
        for seconds in poll(lambda: self._before is None or (self._count() or 0) <= self._before, _GRACE):
            time.sleep(seconds)

    def _count(self) -> int | None:
        return None if self._port is None else count_connections(self._port)
