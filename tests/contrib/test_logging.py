"""`LoggingListener` logs what happens to a pool."""

from __future__ import annotations

import logging

import pytest

from grpcpool import Listener, PoolTimeoutError
from grpcpool._values.listener import HOOKS
from grpcpool.contrib.logging import LoggingListener
from grpcpool.testing import FakeFactory, ManualClock
from support.fakes import failing_factory
from support.pools import PoolMaker
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(30)

_LOGGER = logging.getLogger("orders")


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "orders"]


def test_events_are_logged_in_order(make_pool: PoolMaker, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each event is one plain line, in order."""
    with caplog.at_level(logging.DEBUG, "orders"):
        pool = make_pool(FakeFactory(), name="orders", listeners=[LoggingListener(_LOGGER)], max_size=1)
        held = pool.acquire()
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        clock.advance(1.5)
        held.release()
        waiting.result(LONG).release()
        pool.refresh()
        eventually(lambda: pool.stats().closed["refresh"] == 1)
        pool.close()
        eventually(lambda: len(_lines(caplog)) == 11)
    lines = [line.removeprefix("pool 'orders': ") for line in _lines(caplog)]
    assert lines[:3] == ["opening channel 1", "channel 1 is ready after 0.000 s", lines[2]]
    assert lines[2].startswith("a place on channel 1 was granted after a wait of ")
    assert lines[3] == "no place came free within 0.000 s"
    assert {"a place on channel 1 was granted after a wait of 1.500 s", "channel 1 closed (refresh)"} < set(lines)
    assert {"opening channel 2, to replace channel 1", "channel 2 closed (pool_closed)"} < set(lines)
    assert "a lease of channel 1 was released after 1.500 s" in lines


def test_a_problem_is_a_warning(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """A problem is logged as a warning, with its reason and what happens next."""
    with caplog.at_level(logging.WARNING, "orders"):
        pool = make_pool(failing_factory, name="orders", listeners=[LoggingListener(_LOGGER)])
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        eventually(lambda: any("could not be opened" in line for line in _lines(caplog)))
    line = next(line for line in _lines(caplog) if "could not be opened" in line)
    assert line.startswith("pool 'orders': channel 1 could not be opened: ")
    assert line.endswith(" s at the earliest")
    assert {record.levelno for record in caplog.records if record.name == "orders"} == {logging.WARNING}


def test_it_logs_every_event() -> None:
    """Each event has a line: the listener overrides every hook."""
    assert all(getattr(LoggingListener, hook) is not getattr(Listener, hook) for hook in HOOKS.values())
