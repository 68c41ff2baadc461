"""Signals' handlers that raise, as Celery's soft time limit and Ctrl-C do, at every point at which they may.

CPython runs handlers when a function is entered, and when a function of C has returned. Here each such point within the
package has its turn, one after the other.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from grpcpool import ChannelPool, PoolConfig
from grpcpool.testing import FakeFactory
from support.servers import COUNT, ECHO
from support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

_MOST = 500


class _TimeLimitError(Exception):
    """What the handler raises."""


class _Handler:
    """Raises at the point of that number."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = str(frame.f_globals.get("__name__"))
        if event not in ("call", "c_return") or not name.startswith("grpcpool.") or name.startswith("grpcpool.testing"):
            return
        self._left -= 1
        if not self._left:
            self.raised = True
            sys.setprofile(None)
            raise _TimeLimitError

    def interrupt(self, work: Callable[[], object]) -> None:
        """Does the work, and is the handler meanwhile."""
        sys.setprofile(self)
        try:
            work()
        except _TimeLimitError:
            pass
        finally:
            sys.setprofile(None)


def _lease_all(pool: ChannelPool) -> None:
    pool.acquire(timeout=1).release()


def _lease_one(pool: ChannelPool) -> None:
    pool.acquire(timeout=1, streams=1).release()


def _call(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO)(b"")


def _future(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO).future(b"").result(1)


def _stream(pool: ChannelPool) -> None:
    list(pool.unary_stream(COUNT)(b""))


def _upload(pool: ChannelPool) -> None:
    pool.stream_unary(ECHO).future(iter([b""])).result(1)


# A handler that raises in a finalizer ends nothing but that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("work", [_lease_all, _lease_one, _call, _future, _stream, _upload])
def test_whoever_is_interrupted_loses_no_place(work: Callable[[ChannelPool], None], picker: Any) -> None:
    """Wherever a handler raises amid a lease or a call that need not wait, the place comes back and the pool works."""
    with ChannelPool(FakeFactory(), PoolConfig(min_size=2, max_size=2, picker=picker)) as pool:
        pool.open()
        work(pool)
        for number in range(1, _MOST):
            handler = _Handler(number)
            with warnings.catch_warnings():
                # What an interrupted lease does not give back, the garbage collector does.
                warnings.simplefilter("ignore", ResourceWarning)
                handler.interrupt(lambda: work(pool))
                gc.collect()
            eventually(lambda: pool.stats().in_flight == 0)
            for lease in [pool.acquire(timeout=1), pool.acquire(timeout=1)]:
                lease.release()
            work(pool)
            assert pool.stats().in_flight == 0
            if not handler.raised:
                return
    pytest.fail("there is no end of it")
