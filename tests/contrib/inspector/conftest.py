"""Fixtures: a pool with calls held open, an unreachable server, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from components.programs import program
from grpcpool import ChannelPool, PoolConfig, isolated
from support.browser import Browser
from support.servers import CHAT, Server, dead_target
from support.waiting import eventually


class CallHolder:
    """Calls that the server keeps open until `end`."""

    def __init__(self) -> None:
        """Holds no calls yet."""
        self._over = threading.Event()
        self._calls: list[Any] = []

    def begin(self, pool: ChannelPool, number: int) -> None:
        """Starts this many calls; those without a place wait."""
        chat = pool.stream_stream(CHAT)
        self._calls += [chat(self._requests()) for _ in range(number)]

    def end(self) -> None:
        """Ends all calls."""
        self._over.set()
        for call in self._calls:
            call.cancel()

    def _requests(self) -> Iterator[bytes]:
        self._over.wait()
        yield from ()


@pytest.fixture
def hold() -> Iterator[CallHolder]:
    """Holds calls open during the test."""
    holder = CallHolder()
    yield holder
    holder.end()


@pytest.fixture
def held(server: Server, hold: CallHolder) -> Iterator[ChannelPool]:
    """A pool in a known state: one exclusive lease, six calls on another connection, and two waiting calls."""
    config = PoolConfig(min_size=1, max_size=2, max_streams=6, target_streams=4, max_waiters=20)
    with ChannelPool(server.channel, config, name="held") as pool, pool.acquire():
        hold.begin(pool, 8)
        eventually(lambda: (pool.stats().in_flight, pool.stats().waiting) == (7, 2))
        yield pool
        hold.end()


@pytest.fixture
def dead_channel() -> Iterator[Callable[[], grpc.Channel]]:
    """A factory of channels to an address without a server."""
    with dead_target() as target:
        yield lambda: grpc.insecure_channel(target, isolated())


@pytest.fixture
def dead_pool(dead_channel: Callable[[], grpc.Channel]) -> Iterator[ChannelPool]:
    """A pool whose server is unreachable."""
    with ChannelPool(dead_channel, name="dead") as pool:
        yield pool


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Browser]:
    with Browser(program("chromium"), program("chromedriver")) as browser:
        yield browser


@pytest.fixture
def browser(_chromium: Browser) -> Iterator[Browser]:
    """A browser; the test fails if the page logs an error."""
    _chromium.prefer(color_scheme="light", reduced_motion="no-preference")
    yield _chromium
    _chromium.leave()
    assert _chromium.problems() == []
