"""Where calls that waited are started, as interceptors in the factory's channels see it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc
import pytest

from grpcpool import ChannelPool
from support.call_server import UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually, is_inside
from support.ways import FUTURES, NOT_BLOCKING, Way

pytestmark = pytest.mark.timeout(60)

Hook = Callable[[str], None]
"""Is called with the request of a call that is being started, on the thread that starts it."""


# gRPC's stubs need type parameters that its classes do not accept at run time.
_KINDS: tuple[Any, ...] = (
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
)


class _Interceptor(*_KINDS):  # type: ignore[misc]
    """Calls the hook at the start of each call."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def intercept_unary_unary(self, go_on: Any, details: Any, request: Any) -> Any:
        self._hook(request.decode())
        return go_on(details, request)

    def intercept_stream_unary(self, go_on: Any, details: Any, requests: Any) -> Any:
        self._hook("stream")
        return go_on(details, requests)

    intercept_unary_stream = intercept_unary_unary
    intercept_stream_stream = intercept_stream_unary


class Full:
    """A pool of one connection without room, whose starts call a hook."""

    def __init__(self, pool: ChannelPool, places: int) -> None:
        """Takes the places."""
        self.pool = pool
        multicallable: Any = pool.unary_unary(UU)
        self._blockers = [multicallable.future(f"hold:{new_tag()}".encode(), timeout=60) for _ in range(places)]

    def free(self, places: int = 1) -> None:
        """Frees some places."""
        for _ in range(places):
            self._blockers.pop().cancel()

    def close(self) -> None:
        """Frees all places."""
        self.free(len(self._blockers))

    def future(self, command: str) -> Any:
        """A call, which waits."""
        multicallable: Any = self.pool.unary_unary(UU)
        return multicallable.future(command.encode(), timeout=30)


class MakeFull(Protocol):
    """Makes full pools; afterwards they are at rest."""

    def __call__(self, hook: Hook, places: int = 1) -> Full:
        """Makes one whose connection has so few `places`."""


@pytest.fixture
def make_full(calls: CallServer, make_pool: PoolMaker) -> Iterator[MakeFull]:
    """Makes full pools; afterwards they are at rest."""
    with contextlib.ExitStack() as stack:

        def make(hook: Hook, places: int = 1) -> Full:
            def factory() -> grpc.Channel:
                return grpc.intercept_channel(calls.channel(), _Interceptor(hook))

            pool = make_pool(factory, max_size=1, max_streams=places, max_waiters=None)
            pool.open()
            full = Full(pool, places)
            stack.callback(assert_at_rest, pool)
            stack.callback(full.close)
            return full

        yield make


class Seen:
    """What a hook saw: the thread, and what was stored for it."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.local = threading.local()
        self.threads: list[int] = []
        self.values: list[str | None] = []

    def __call__(self, request: str) -> None:
        """Looks, unless the call is one that takes a place."""
        if not request.startswith("hold"):
            self.threads.append(threading.get_ident())
            self.values.append(getattr(self.local, "value", None))


# --- on which thread ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
@pytest.mark.parametrize("ask", ["finish", "initial_metadata"])
def test_a_caller_that_waits_starts_its_call(make_full: MakeFull, way: Way, ask: str) -> None:
    """A call is started by the thread that made it if that waits in the call: interceptors find its thread-locals."""
    seen = Seen()
    full = make_full(seen)
    me = threading.get_ident()
    seen.local.value = "mine"
    call = way.begin(full.pool)

    def free() -> None:
        eventually(lambda: call._stage.callers_wait)
        full.free()

    freed = background(free)
    answer = way.finish(call) if ask == "finish" else getattr(call, ask)()
    freed.result(LONG)
    assert answer
    assert seen.threads == [me]
    assert seen.values == ["mine"]
    way.finish(call)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_without_a_caller_that_waits(make_full: MakeFull, way: Way) -> None:
    """A call for which its caller does not wait starts by itself, on another thread."""
    seen = Seen()
    full = make_full(seen)
    call = way.begin(full.pool)
    full.free()
    eventually(lambda: seen.threads)
    assert seen.threads != [threading.get_ident()]
    assert seen.values == [None]
    way.finish(call)


@pytest.mark.parametrize("way", FUTURES, ids=str)
def test_another_thread_that_waits_does_not_start_it(make_full: MakeFull, way: Way) -> None:
    """A thread that waits for a call which another has made gets its answer, and does not run interceptors for it."""
    seen = Seen()
    full = make_full(seen)
    waits: list[int] = []
    call = way.begin(full.pool)

    def wait() -> Any:
        waits.append(threading.get_ident())
        return call.result(LONG)

    answer = background(wait)
    eventually(lambda: waits and is_inside("acquire_within", waits[0]))
    full.free()
    assert answer.result(LONG) == b"0"
    assert len(seen.threads) == 1
    assert seen.threads[0] not in (waits[0], threading.get_ident())


def test_a_caller_that_gave_up_waiting(make_full: MakeFull) -> None:
    """After `result(timeout)` has timed out, the caller is not waited for: the call starts by itself."""
    seen = Seen()
    full = make_full(seen)
    call = full.future("ok")
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.01)
    full.free()
    eventually(lambda: seen.threads)
    assert seen.threads != [threading.get_ident()]
    assert call.result(LONG) == b"0"


# --- starts that block ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits_in", ["result", "a callback"])
@pytest.mark.parametrize("caller", ["waits", "is away"])
def test_a_call_within_a_start(make_full: MakeFull, waits_in: str, caller: str) -> None:
    """An interceptor may make a call over the same pool, which waits too, and wait for its end."""
    made = threading.Event()
    answers: list[bytes] = []

    def nest(request: str) -> None:
        if request != "outer":
            return
        over = threading.Event()
        nested = full.future("inner")
        made.set()
        if waits_in == "a callback":
            nested.add_done_callback(lambda _: over.set())
            assert over.wait(LONG)
        answers.append(nested.result(LONG))

    full = make_full(nest, places=2)
    outer = full.future("outer")

    def free() -> None:
        full.free()
        assert made.wait(LONG)
        full.free()

    freed = background(free)
    if caller == "is away":
        freed.result(LONG)
        eventually(lambda: answers)
    assert outer.result(LONG) == b"outer"
    freed.result(LONG)
    assert answers == [b"inner"]


def test_a_start_that_blocks_delays_no_other(make_full: MakeFull) -> None:
    """While an interceptor blocks at one start, the calls behind it start and end."""
    begun, release = threading.Event(), threading.Event()

    def block(request: str) -> None:
        if request == "slow":
            begun.set()
            assert release.wait(LONG)

    full = make_full(block, places=2)
    slow = full.future("slow")
    full.free()
    assert begun.wait(LONG)
    others = [full.future(f"other {i}") for i in range(20)]
    over = threading.Semaphore(0)
    for other in others:
        other.add_done_callback(lambda _: over.release())
    full.free()
    for _ in others:
        assert over.acquire(timeout=LONG)
    assert not slow.done()
    release.set()
    assert slow.result(LONG) == b"slow"
    assert [other.result(LONG) for other in others] == [f"other {i}".encode() for i in range(20)]


def test_many_starts_that_block(make_full: MakeFull) -> None:
    """When starts wait for each other, all of them end, whatever their order."""
    number = 8
    together = threading.Barrier(number)

    def meet(request: str) -> None:
        if request == "meets":
            together.wait(LONG)

    full = make_full(meet, places=number)
    calls = [full.future("meets") for _ in range(number)]
    full.free(number)
    assert [call.result(LONG) for call in calls] == [b"meets"] * number


def test_many_calls_need_few_threads(make_full: MakeFull) -> None:
    """1,000 futures that wait use a handful of threads, and none as long as they wait."""
    most = 0

    def starters() -> int:
        return sum(thread.name.endswith("-starter") for thread in threading.enumerate())

    def count(request: str) -> None:
        nonlocal most
        if not request.startswith("hold"):
            most = max(most, starters())

    full = make_full(count, places=10)
    before = threading.active_count()
    calls = [full.future(str(i)) for i in range(1000)]
    assert full.pool.stats().waiting == 1000
    assert starters() == 0
    assert threading.active_count() <= before
    full.free(10)
    assert [call.result(LONG) for call in reversed(calls)] == [str(i).encode() for i in reversed(range(1000))]
    assert 1 <= most <= 6
    assert full.pool.stats().waiting == 0
