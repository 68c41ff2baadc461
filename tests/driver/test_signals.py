"""Signals that do not wake the main thread: another thread gets them, or they come just before it sleeps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grpcpool import ChannelPool, PoolConfig
from grpcpool.testing import FakeChannel, FakeFactory
from support.servers import COUNT, ECHO
from support.signals import Interruption, main_thread
from support.waiting import LONG, background, eventually, is_inside

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def handler() -> Iterator[threading.Event]:
    """SIGUSR1 raises `Interruption` in the main thread; set once it has."""
    raised = threading.Event()

    def interrupt(*_: object) -> None:
        raised.set()
        raise Interruption

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield raised
    signal.signal(signal.SIGUSR1, before)


def _acquire(pool: ChannelPool) -> None:
    pool.acquire(timeout=None)


def _acquire_in_time(pool: ChannelPool) -> None:
    pool.acquire(timeout=1e9)


def _call(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO)(b"", timeout=1e9)


def _call_that_waits_for_ready(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO)(b"", wait_for_ready=True)


def _upload(pool: ChannelPool) -> None:
    pool.stream_unary(ECHO)(iter([b""]), timeout=1e9)


def _result(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO).future(b"", wait_for_ready=True).result()


def _result_in_time(pool: ChannelPool) -> None:
    pool.unary_unary(ECHO).future(b"", wait_for_ready=True).result(1e9)


def _code(pool: ChannelPool) -> None:
    pool.stream_unary(ECHO).future(iter([b""]), wait_for_ready=True).code()


def _read(pool: ChannelPool) -> None:
    next(pool.unary_stream(COUNT)(b"", wait_for_ready=True))


def _read_both_ways(pool: ChannelPool) -> None:
    next(pool.stream_stream(COUNT)(iter([b""]), wait_for_ready=True))


@pytest.mark.parametrize(
    "work",
    [
        _acquire,
        _acquire_in_time,
        _call,
        _call_that_waits_for_ready,
        _upload,
        _result,
        _result_in_time,
        _code,
        _read,
        _read_both_ways,
    ],
)
def test_a_wait_for_a_place_ends(work: Callable[[ChannelPool], None], handler: threading.Event) -> None:
    """The handler runs although nothing wakes the thread that waits; nothing stays in the queue, or in flight."""
    with ChannelPool(FakeFactory(), PoolConfig(max_size=1, max_streams=1)) as pool:
        lease = pool.acquire()

        def interrupt() -> None:
            eventually(lambda: pool.stats().waiting == 1)
            _raise_here(handler)

        interrupter = background(interrupt)
        with pytest.raises(Interruption):
            work(pool)
        interrupter.result(LONG)
        eventually(lambda: pool.stats().waiting == 0)
        lease.release()
        eventually(lambda: pool.stats().in_flight == 0)


def test_an_open_ends(handler: threading.Event) -> None:
    """As above, while `open()` waits for connections."""
    begun, gate = threading.Event(), threading.Event()

    def hang() -> Any:
        begun.set()
        assert gate.wait(LONG)
        return FakeChannel()

    with ChannelPool(hang, PoolConfig(min_size=1)) as pool:

        def interrupt() -> None:
            assert begun.wait(LONG)
            eventually(lambda: is_inside("acquire_within", main_thread()))
            _raise_here(handler)

        interrupter = background(interrupt)
        with pytest.raises(Interruption):
            pool.open()
        interrupter.result(LONG)
        assert pool.stats().size == 0
        gate.set()


def test_a_close_ends(handler: threading.Event) -> None:
    """As above, while `close()` waits for a lease; the next one waits again."""
    pool = ChannelPool(FakeFactory(), PoolConfig(max_size=1))
    lease = pool.acquire()

    def interrupt() -> None:
        eventually(lambda: is_inside("acquire_within", main_thread()))
        _raise_here(handler)

    interrupter = background(interrupt)
    with pytest.raises(Interruption):
        pool.close(grace=1e9)
    interrupter.result(LONG)
    others = [background(lambda: pool.close(grace=1e9)) for _ in range(2)]
    lease.release()
    for other in others:
        other.result(LONG)
    pool.close()


def _raise_here(handler: threading.Event) -> None:
    """Sends the signal to this thread, and waits until the handler has run in the main thread."""
    signal.raise_signal(signal.SIGUSR1)
    assert handler.wait(LONG)
