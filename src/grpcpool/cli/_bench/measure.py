"""Measures one way to call at one level of load."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from .aio_loops import call_when_due, keep_calling
from .channels import BARE, Server
from .connections import Connections
from .levels import Level
from .load import CallerThreads
from .loop_thread import LoopThread
from .open_recorder import OpenLoopRecorder
from .recorder import CallRecorder
from .result import Plan, Result
from .schedule import draw_schedule

_PROGRESS_INTERVAL: Final = 0.05
_GRACE: Final = 2.0
MAX_LAG: Final = 1.0
"""Seconds after which an open loop no longer makes a call that was due."""

OnProgress = Callable[[CallRecorder], None]


class Load(Protocol):
    """What makes the calls of a measurement."""

    def start(self) -> None:
        """Starts to make calls."""

    def is_done(self) -> bool:
        """Whether the measurement is over."""

    def end(self, grace: float) -> None:
        """Waits `grace` seconds for the calls to end, then cancels them, and closes the channel."""


def measure(way: str, create: Callable[[], Any], level: Level, plan: Plan, on_progress: OnProgress) -> Result:
    """Measures one way to call: a closed loop of threads, or an open loop on asyncio.

    Args:
        way: The way's name.
        create: Creates the channel, of `grpc` for a closed loop, of `grpc.aio` for an open one.
        level: The load.
        plan: What to call, and for how long.
        on_progress: Called regularly with the numbers so far.

    Returns:
        The measured numbers. An interruption ends the measurement early, and marks the result as incomplete.
    """
    if level.callers is not None:
        recorder = CallRecorder(plan.warmup, plan.duration)
        callers = level.callers
        return _measure(
            way, level, plan, recorder, lambda: CallerThreads(create(), callers, plan, recorder), on_progress
        )
    # Drawn before anything starts, and the same for each way.
    schedule = draw_schedule(level.rate or 0.0, plan.warmup + plan.duration, plan.seed)
    open_recorder = OpenLoopRecorder(plan.warmup, plan.duration)
    make_calls = functools.partial(
        call_when_due,
        recorder=open_recorder,
        schedule=schedule,
        max_in_flight=plan.max_in_flight,
        max_lag=min(MAX_LAG, plan.timeout),
    )
    return _measure(
        way, level, plan, open_recorder, lambda: LoopThread(create, plan, open_recorder, make_calls), on_progress
    )


def measure_capacity(server: Server, plan: Plan, on_progress: OnProgress) -> Result:
    """Measures how many calls per second one channel completes on asyncio, with as many callers as it may have streams.

    Returns:
        The measured numbers, as `measure`.
    """
    level = Level(callers=server.config.max_streams)
    recorder = CallRecorder(plan.warmup, plan.duration)
    make_calls = functools.partial(keep_calling, recorder=recorder, callers=server.config.max_streams)
    create = functools.partial(server.channel, aio=True)
    return _measure(BARE, level, plan, recorder, lambda: LoopThread(create, plan, recorder, make_calls), on_progress)


def _measure(
    way: str,
    level: Level,
    plan: Plan,
    recorder: CallRecorder,
    create_load: Callable[[], Load],
    on_progress: OnProgress,
) -> Result:
    connections = Connections(plan.port)

    def update_progress() -> None:
        recorder.process()
        connections.update_peak()
        on_progress(recorder)

    complete = False
    with contextlib.suppress(KeyboardInterrupt):
        _run(create_load(), update_progress)
        connections.wait_until_closed()
        complete = True
    recorder.process(last=True)
    return Result(way, level, recorder, connections.opened, complete)


def _run(load: Load, update_progress: Callable[[], None]) -> None:
    grace = 0.0
    try:
        load.start()
        while not load.is_done():
            time.sleep(_PROGRESS_INTERVAL)
            update_progress()
        grace = _GRACE
    finally:
        load.end(grace)
