"""gRPC's client interceptors: around a pool, and around the channels in it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import pytest

from grpcpool import ChannelPool
from support.call_server import UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually
from support.ways import NOT_BLOCKING, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)


class _Details(NamedTuple):
    """What interceptors pass on."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


# gRPC's stubs need type parameters that its classes do not accept at run time.
_KINDS: tuple[Any, ...] = (
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
)


class _AllKinds(*_KINDS):  # type: ignore[misc]
    """Intercepts the four kinds with `intercept`."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._guard = threading.Lock()

    def intercept(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        """Counts, and adds to the metadata."""
        with self._guard:
            self.seen[details.method] += 1
        metadata = [*(details.metadata or ()), ("intercepted", "yes")]
        changed = _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return go_on(changed, request)

    def intercept_unary_unary(self, go_on: Any, details: Any, request: Any) -> Any:
        return self.intercept(go_on, details, request)

    def intercept_unary_stream(self, go_on: Any, details: Any, request: Any) -> Any:
        return self.intercept(go_on, details, request)

    def intercept_stream_unary(self, go_on: Any, details: Any, request: Any) -> Any:
        return self.intercept(go_on, details, request)

    def intercept_stream_stream(self, go_on: Any, details: Any, request: Any) -> Any:
        return self.intercept(go_on, details, request)


class _Generators(_AllKinds):
    """Returns generators for streams, as many interceptors do; they are neither calls nor futures."""

    def intercept_unary_stream(self, go_on: Any, details: Any, request: Any) -> Any:
        yield from self.intercept(go_on, details, request)

    def intercept_stream_stream(self, go_on: Any, details: Any, request: Any) -> Any:
        yield from self.intercept(go_on, details, request)


class _Fails(_AllKinds):
    """Raises instead of calling on."""

    def intercept(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        """Fails."""
        raise ArithmeticError("an interceptor failed, as the test wants")


class _Answers(_AllKinds):
    """Answers futures itself, with a future that is not a call, and makes no call."""

    def intercept(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        """Answers."""
        return _Answer()


class _Answer(grpc.Future):  # type: ignore[type-arg]
    """A future that is done; it has no `add_callback`."""

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> bytes:
        return b"answered"

    def exception(self, timeout: float | None = None) -> None:
        return None

    def traceback(self, timeout: float | None = None) -> None:
        return None

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)


Wrap = Callable[[_AllKinds], tuple[ChannelPool, grpc.Channel]]


@pytest.fixture(params=["around the pool", "around its channels"])
def wrap(request: pytest.FixtureRequest, calls: CallServer, make_pool: PoolMaker) -> Iterator[Wrap]:
    """Puts an interceptor around a pool with one place, or around the channels in it; returns both."""
    made: list[ChannelPool] = []

    def wrap(interceptor: _AllKinds) -> tuple[ChannelPool, grpc.Channel]:
        if request.param == "around the pool":
            pool = make_pool(calls.channel, max_size=1, max_streams=1)
            channel = grpc.intercept_channel(pool, interceptor)
        else:
            pool = make_pool(lambda: grpc.intercept_channel(calls.channel(), interceptor), max_size=1, max_streams=1)
            channel = pool
        pool.open()
        made.append(pool)
        return pool, channel

    yield wrap
    for pool in made:
        assert_at_rest(pool)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_interceptor_is_applied_once(wrap: Wrap, way: Way) -> None:
    """An interceptor sees each call once, and what it adds reaches the server."""
    interceptor = _AllKinds()
    _, channel = wrap(interceptor)
    answer = way.finish(way.begin(channel, "metadata"))
    text = answer if isinstance(answer, bytes) else answer[0]
    assert text.count(b'["intercepted", "yes"]') == 1
    assert interceptor.seen == {way.method: 1}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_calls_end_as_without_a_pool(wrap: Wrap, plain: grpc.Channel, way: Way) -> None:
    """Answers and errors are those of an intercepted plain channel."""
    _, channel = wrap(_AllKinds())
    native = grpc.intercept_channel(plain, _AllKinds())
    for command in ("ok", "fail"):
        outcomes = [
            outcome_of(lambda one=one, command=command: way.finish(way.begin(one, command)))  # type: ignore[misc]
            for one in (channel, native)
        ]
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_call_that_waits_is_intercepted_once(wrap: Wrap, way: Way) -> None:
    """A call that has to wait for its place is intercepted once."""
    interceptor = _AllKinds()
    pool, channel = wrap(interceptor)
    multicallable: Any = pool.unary_unary(UU)
    blocker = multicallable.future(f"hold:{new_tag()}".encode())
    interceptor.seen.clear()
    told: list[Any] = []
    call = way.begin(channel)
    call.add_done_callback(told.append)
    answer = background(lambda: way.finish(call))
    eventually(lambda: pool.stats().waiting == 1)
    blocker.cancel()
    assert answer.result(LONG)
    eventually(lambda: len(told) == 1)
    assert interceptor.seen == {way.method: 1}


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_cancel_passes_through(calls: CallServer, wrap: Wrap, way: Way) -> None:
    """Cancelling a call through interceptors ends it on the server."""
    _, channel = wrap(_AllKinds())
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    calls.wait_until_held(tag)
    call.cancel()
    calls.wait_until_let_go(tag)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_interceptors_that_are_generators(wrap: Wrap, plain: grpc.Channel, way: Way) -> None:
    """An interceptor that yields the responses, as OpenTelemetry's does, works; the place is free when all are read."""
    pool, channel = wrap(_Generators())
    native = grpc.intercept_channel(plain, _Generators())
    for _ in range(2):
        begun = way.begin(channel)
        answers = [way.finish(begun), way.finish(way.begin(native))]
        if way.how == "with_call":
            # The calls differ.
            answers = [response for response, _ in answers]
        assert answers[0] == answers[1]
        # Although it is still held.
        eventually(lambda: pool.stats().in_flight == 0, timeout=5)


@pytest.mark.parametrize("way", [way for way in WAYS if way.streams_out], ids=str)
@pytest.mark.parametrize("read", [0, 1])
def test_generators_that_are_dropped(calls: CallServer, wrap: Wrap, way: Way, read: int) -> None:
    """A generator dropped unread, or half read, releases its place."""
    pool, channel = wrap(_Generators())
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    for _ in range(read):
        assert next(call) == b"0"
    del call
    assert_at_rest(pool)
    calls.wait_until_let_go(tag)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_generators_that_wait(wrap: Wrap, way: Way) -> None:
    """A call that had to wait for its place may turn out to be a generator."""
    pool, channel = wrap(_Generators())
    multicallable: Any = pool.unary_unary(UU)
    blocker = multicallable.future(f"hold:{new_tag()}".encode())
    call = way.begin(channel)
    answer = background(lambda: way.finish(call))
    eventually(lambda: pool.stats().waiting == 1)
    blocker.cancel()
    assert answer.result(5)
    eventually(lambda: pool.stats().in_flight == 0, timeout=5)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_interceptor_that_raises(wrap: Wrap, plain: grpc.Channel, way: Way) -> None:
    """The caller sees what it would see without a pool, and the place is released."""
    _, channel = wrap(_Fails())
    native = grpc.intercept_channel(plain, _Fails())
    assert outcome_of(lambda: way.finish(way.begin(channel))) == outcome_of(lambda: way.finish(way.begin(native)))


@pytest.mark.parametrize("way", [way for way in WAYS if way.how == "future"], ids=str)
def test_an_interceptor_that_answers_itself(wrap: Wrap, way: Way) -> None:
    """An interceptor may return a plain future; the place is free again."""
    _, channel = wrap(_Answers())
    for _ in range(3):
        assert way.begin(channel).result() == b"answered"


@pytest.mark.parametrize("way", [way for way in WAYS if way.how == "future"], ids=str)
def test_an_answer_to_a_call_that_waited(wrap: Wrap, way: Way) -> None:
    """The same holds after a wait; the call's callbacks run, although the answer supports only done-callbacks."""
    pool, channel = wrap(_Answers())
    with pool.acquire():
        call = way.begin(channel)
        told: list[Any] = []
        call.add_done_callback(told.append)
    assert call.result(LONG) == b"answered"
    eventually(lambda: told == [call], timeout=5)


class _RetriesTransient(_AllKinds):
    """Repeats a failed call, as interceptors in many programs do."""

    def intercept(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        call = super().intercept(go_on, details, request)
        if isinstance(call, grpc.RpcError) and call.code() is grpc.StatusCode.PERMISSION_DENIED:
            call = super().intercept(go_on, details, b"ok")
        return call


@pytest.mark.parametrize("how", ["__call__", "with_call", "future"])
def test_an_interceptor_that_makes_a_failed_call_again(calls: CallServer, single: ChannelPool, how: str) -> None:
    """The interceptor can tell by the class of what it got, gRPC's or a subclass, that the call may have failed."""
    interceptor: Any = _RetriesTransient()
    way = Way("unary_unary", how, UU)  # type: ignore[arg-type]
    answer = way.finish(way.begin(grpc.intercept_channel(single, interceptor), "fail"))
    assert (answer[0] if isinstance(answer, tuple) else answer) == b"0"
    assert sum(interceptor.seen.values()) == 2
    assert_at_rest(single)
