"""Calls a method from many threads over one channel: a closed loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from ..._demo.call_counter import failure_name
from .._errors import CommandError
from .metadata import Metadata
from .methods import Method
from .recorder import CallRecorder
from .result import Plan

_GRACE = 2.0


class CallerThreads:
    """The threads that make the calls, each one call after another."""

    def __init__(self, channel: grpc.Channel, callers: int, plan: Plan, recorder: CallRecorder) -> None:
        """Starts nothing yet. The channel is closed at the end."""
        self._channel, self._recorder = channel, recorder
        call = _call(channel, plan.method, plan.timeout, plan.metadata)
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
        self._recorder.begin()

    def is_done(self) -> bool:
        """Whether the measurement is over."""
        return self._recorder.is_over()

    def end(self, grace: float) -> None:
        """Ends the threads; cancels calls that run for longer than `grace` seconds."""
        self._recorder.stop()
        deadline = time.monotonic() + grace
        self._join(deadline)
        self._channel.close()
        self._join(time.monotonic() + _GRACE)

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


def call_once(channel: grpc.Channel, method: Method, timeout: float, metadata: Metadata = ()) -> None:
    """Makes one call, and raises its error if it fails."""
    _call(channel, method, timeout, metadata)()


def _keep_calling(call: Callable[[], object], recorder: CallRecorder) -> None:
    while not recorder.is_over():
        began = time.perf_counter()
        failure = None
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- every failure is counted
            failure = failure_name(error)
        recorder.record(began, failure)


def _call(channel: grpc.Channel, method: Method, timeout: float, metadata: Metadata) -> Callable[[], object]:
    """Returns a function that makes one complete call. Responses are received, but not parsed."""
    if not method.streams:
        unary: Any = channel.unary_unary(method.path)
        return lambda: unary(method.request, timeout=timeout, metadata=metadata)
    stream: Any = channel.unary_stream(method.path)

    def read_all() -> None:
        for _ in stream(method.request, timeout=timeout, metadata=metadata):
            pass

    return read_all
