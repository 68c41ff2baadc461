"""Counts the calls that end within the measured time, with their durations and failures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import grpc

from grpcpool import PoolStats
from grpcpool._grpc.status import code_of, is_refused_stream
from grpcpool._shared.pool_base import PoolBase

WARM_UP: Final = 0.6
MEASURED = 1.6
CALL_TIMEOUT: Final = 10.0


class CallCounter:
    """Counts calls. Thread-safe."""

    def __init__(self, measured: float) -> None:
        """Starts the warm-up; after it, calls count for `measured` seconds."""
        self.begins = time.monotonic() + WARM_UP
        self.ends = self.begins + measured
        self.stopped = False
        self.latencies: list[float] = []
        self.failures: list[str] = []
        # A pool's stats after all calls.
        self.at_rest: PoolStats | None = None

    def running(self) -> bool:
        """Whether to make another call."""
        return not self.stopped and time.monotonic() < self.ends

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Counts how the ``with`` block ends, which is one call."""
        began = time.monotonic()
        failure = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- every failure is counted
            failure = failure_name(error)
        now = time.monotonic()
        # No lock: appending to a list is thread-safe.
        if not self.begins <= now < self.ends:
            return
        if failure is None:
            self.latencies.append(now - began)
        else:
            self.failures.append(failure)

    def record_stats(self, channel: object) -> None:
        """Records the pool's stats after the last call, if `channel` is a pool."""
        if isinstance(channel, PoolBase):
            self.at_rest = channel.stats()


def failure_name(error: Exception) -> str:
    """Returns a short name for the failure of a call."""
    if isinstance(error, grpc.RpcError) and (code := code_of(error)) is not None:
        return code.name + (" (stream refused)" if is_refused_stream(error) else "")
    return type(error).__name__
