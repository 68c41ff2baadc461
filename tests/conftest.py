"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import hypothesis
import pytest

from grpcpool import ChannelPool, Listener, PoolConfig
from grpcpool.testing import ManualClock, manual_clock
from support.bytecode import first_alone, pytest_configure  # noqa: F401 -- the latter is a hook
from support.connections import assert_no_connections
from support.garbage import ASIDE
from support.parallel import pytest_cmdline_main  # noqa: F401 -- a hook
from support.pools import PoolMaker, pool_threads
from support.servers import Server, dead_target
from support.waiting import eventually

# Other packages' plugins for hypothesis: no test needs them, and they import much, such as trio.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

_HERE = pathlib.Path(__file__).parent
_DEMO = _HERE / "demo"
_WITH_THREADS = {_HERE / folder for folder in ("calls", "driver", "real", "refusals")}


# See the marker in pyproject.toml.
_LONG = (
    "cli/test_bench.py",
    "contrib/inspector/test_crowd.py",
    "contrib/inspector/test_page.py",
    "contrib/inspector/test_stale.py",
    "aio_calls/test_interceptors.py",
    "aio_calls/test_left.py",
    # `nox -s simulate` plays more of its lives.
    "machine/test_simulation.py",
)
_LONG_FOLDERS = ("components", "examples", "resilience", "sdks")
_LONG_LOOPS = ("[debug", "[uvloop", "[eager", "-debug", "-uvloop", "-eager")


@functools.cache
def _all_long(path: pathlib.Path) -> bool:
    """Whether all tests of a file are long. None of those of the documentation is."""
    if _HERE not in path.parents:
        return False
    name = path.relative_to(_HERE).as_posix()
    return name in _LONG or name.startswith(_LONG_FOLDERS)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """By default, files of long tests are not even imported: each process would import them all."""
    left_out = config.option.markexpr == "not long" and _all_long(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the long tests. The demonstration runs first, because for twenty seconds one process only waits for it."""
    items.sort(key=lambda item: item.path.parent != _DEMO)
    for item in items:
        if _all_long(item.path) or any(loop in item.name for loop in _LONG_LOOPS):
            item.add_marker("long")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """While tests are imported, nothing looks for garbage: there is little, and what is alive grows with each file."""
    gc.disable()
    try:
        with first_alone(session.config):
            return (yield)
    finally:
        ASIDE.now()
        gc.enable()


def pytest_runtest_setup() -> None:
    """Keeps collections quick: tests need many."""
    ASIDE.before_a_test()


@pytest.fixture(scope="session", autouse=True)
def _all_is_collected() -> Iterator[None]:
    """An object that complains when it is collected does so during a test: at the latest in the last teardown."""
    yield
    ASIDE.look_through_all()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread of a pool is left after a test of a driver."""
    if request.path.parent not in _WITH_THREADS:
        yield
        return
    before = pool_threads()
    yield
    eventually(lambda: pool_threads() <= before, timeout=5)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the programs that the test starts, also if pytest is a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def _not_collecting() -> Iterator[None]:
    """Without the garbage collector only objects outside cycles are freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(_shared_server: Server) -> Iterator[Server]:
    """A server that no test kills or freezes; after each test, no connection to it is left."""
    yield _shared_server
    try:
        assert_no_connections(_shared_server.port)
    except AssertionError:
        # The next test must begin without these connections.
        _shared_server.kill()
        _shared_server.port = 0
        _shared_server.start()
        raise


@pytest.fixture
def dead() -> Iterator[str]:
    """A target that refuses connections."""
    with dead_target() as target:
        yield target


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """The clock of the test's pools. It stands still, so that a refused call is sent again without a pause."""
    with pytest.MonkeyPatch.context() as patch, manual_clock() as clock:
        patch.setattr("grpcpool._shared.driver._FIRST_PAUSE", 0.0)
        yield clock


@pytest.fixture
def not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection is not replaced, however long its server takes to come back."""
    monkeypatch.setattr("grpcpool._machine.fleet.GIVEN_UP_AFTER", 600.0)


@pytest.fixture
def make_pool() -> Iterator[PoolMaker]:
    """Makes pools, which are closed when the test is over."""
    with contextlib.ExitStack() as stack:

        def make(
            factory: Callable[[], grpc.Channel],
            *,
            name: str | None = None,
            listeners: Iterable[Listener] = (),
            **config: Any,
        ) -> ChannelPool:
            pool = ChannelPool(factory, PoolConfig(**config), name=name, listeners=listeners)
            stack.callback(pool.close, 0)
            return pool

        yield make
