"""A tally of calls: those that end within the time measured, how long they took, and what failed."""

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
MEASURED: Final = 1.6
CALL_TIMEOUT: Final = 10.0


class Tally:
    """Counts, from any thread."""

    def __init__(self, measured: float = MEASURED) -> None:
        """Begins with the warm-up; what is `measured` are so many seconds after it."""
        self.begins = time.monotonic() + WARM_UP
        self.ends = self.begins + measured
        self.stopped = False
        self.latencies: list[float] = []
        self.failures: list[str] = []
        # Of a pool: what it was like when all calls were over.
        self.at_rest: PoolStats | None = None

    def running(self) -> bool:
        """Whether to make another call."""
        return not self.stopped and time.monotonic() < self.ends

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call is what is in the ``with`` block; how that ends is counted."""
        began = time.monotonic()
        failure = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is counted
            failure = named(error)
        now = time.monotonic()
        # Takes no lock: to append to a list is safe for threads.
        if not self.begins <= now < self.ends:
            return
        if failure is None:
            self.latencies.append(now - began)
        else:
            self.failures.append(failure)

    def note(self, channel: object) -> None:
        """All calls on `channel` are over."""
        if isinstance(channel, PoolBase):
            self.at_rest = channel.stats()


def named(error: Exception) -> str:
    """A short name for what a call failed with."""
    if isinstance(error, grpc.RpcError) and (code := code_of(error)) is not None:
        return code.name + (" (stream refused)" if is_refused_stream(error) else "")
    return type(error).__name__
