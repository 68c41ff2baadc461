"""Makes calls on an event loop: each when it is due (an open loop), or one after another (a closed loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from ..._demo.call_counter import failure_name
from .loop_thread import AioCall
from .open_recorder import OpenLoopRecorder
from .recorder import CallRecorder

# How many calls that are late may be started before others can make progress.
_BATCH: Final = 16


async def call_when_due(
    call: AioCall, recorder: OpenLoopRecorder, schedule: Sequence[float], max_in_flight: int, max_lag: float
) -> None:
    """Makes each call when it is due, whatever has become of earlier ones; returns when the last has ended.

    A call is dropped if too many are in flight, or if this process does not get to it within `max_lag` seconds.

    Args:
        call: Makes a call.
        recorder: Records the calls.
        schedule: When calls are due, in seconds from now.
        max_in_flight: Calls that may be in flight.
        max_lag: Seconds that a call may be late.
    """
    tasks: set[asyncio.Task[None]] = set()
    began = recorder.begin()
    async with asyncio.TaskGroup() as group:
        for number, offset in enumerate(schedule):
            due = began + offset
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            elif number % _BATCH == 0:
                await asyncio.sleep(0)
            if len(tasks) >= max_in_flight or -pause > max_lag:
                recorder.drop(due)
                continue
            recorder.start(due)
            tasks.add(task := group.create_task(_make(call, recorder, due)))
            task.add_done_callback(tasks.discard)


async def keep_calling(call: AioCall, recorder: CallRecorder, callers: int) -> None:
    """Makes calls one after another from the given number of callers; returns at the end of the measurement."""
    recorder.begin()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(_keep_calling(call, recorder))


async def _keep_calling(call: AioCall, recorder: CallRecorder) -> None:
    while not recorder.is_over():
        await _make(call, recorder, time.perf_counter())


async def _make(call: AioCall, recorder: CallRecorder, began: float) -> None:
    failure = None
    try:
        await call()
    except Exception as error:  # noqa: BLE001 -- every failure is counted
        failure = failure_name(error)
    recorder.record(began, failure)
