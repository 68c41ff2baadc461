"""The listener that logs a pool's events."""

from __future__ import annotations

import logging

import grpc
import pytest

import grpcpool
from grpcpool import Listener, PoolTimeoutError
from grpcpool._values.listener import HOOKS
from grpcpool.contrib.logging import LoggingListener
from grpcpool.testing import FakeFactory, ManualClock
from support.fakes import failing_factory
from support.pools import PoolMaker
from support.servers import FAIL, RECONNECT_SOON, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(30)

_LOGGER = logging.getLogger("orders")


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "orders"]


def test_each_event_is_one_line(make_pool: PoolMaker, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each event is logged as one line, in order."""
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
    assert lines[:3] == ["opening channel 1", "channel 1 opened in 0.000 s", lines[2]]
    assert lines[2].startswith("granted a place on channel 1 after ")
    assert lines[3] == "timed out at once: no place was free"
    assert {"granted a place on channel 1 after 1.500 s", "channel 1 closed (refresh)"} < set(lines)
    assert {"opening channel 2 to replace channel 1", "channel 2 closed (pool_closed)"} < set(lines)
    assert "released a lease of channel 1 after 1.500 s" in lines


def test_problems_are_warnings(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Problems are logged as warnings, with the reason and the next step."""
    with caplog.at_level(logging.WARNING, "orders"):
        pool = make_pool(failing_factory, name="orders", listeners=[LoggingListener(_LOGGER)])
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        eventually(lambda: any("failed to open" in line for line in _lines(caplog)))
    line = next(line for line in _lines(caplog) if "failed to open" in line)
    assert line.startswith("pool 'orders': channel 1 failed to open: ")
    assert line.endswith(" s at the earliest")
    assert {record.levelno for record in caplog.records if record.name == "orders"} == {logging.WARNING}


def test_outages_and_sick_servers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failed call, a loss and the recovery are one line each; the pool's own log says when all of it is down."""
    with (
        caplog.at_level(logging.INFO),
        Server() as server,
        grpcpool.insecure_channel(server.target, RECONNECT_SOON, name="orders") as pool,
    ):
        pool.add_listener(LoggingListener(_LOGGER))
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, b"INTERNAL")
        eventually(lambda: "ranks behind others" in _lines(caplog)[-1])
        server.kill()
        eventually(lambda: pool.stats().lost)
        server.restart()
        eventually(lambda: "is up again after" in _lines(caplog)[-1])
    lines = [line.removeprefix("pool 'orders': ") for line in _lines(caplog)]
    assert "a call failed with INTERNAL on channel 1, which ranks behind others for now" in lines
    assert sum(line.startswith("channel 1 is down") for line in lines) == 1
    own = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "grpcpool"]
    assert own.count(("WARNING", "pool 'orders' is down: no connection is up")) == 1
    assert own.count(("INFO", "pool 'orders' is up again")) == 1
    assert not any("INTERNAL" in line for _, line in own)


def test_it_handles_every_event() -> None:
    """The listener overrides every hook."""
    assert all(getattr(LoggingListener, hook) is not getattr(Listener, hook) for hook in HOOKS.values())
