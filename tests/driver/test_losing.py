"""Connections that go down, while calls use them and while they are unused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, PoolTimeoutError
from grpcpool.testing import ManualClock
from support.fakes import FakeChannel, FakeFactory, error
from support.pools import PoolMaker
from support.servers import ECHO, FAIL
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)


def test_the_loss_of_an_unused_connection_is_noticed(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Ready connections are checked once a second; one that is down is out of service until it is up again."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2)
    pool.open()
    factory.made[0].set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    clock.advance(1.0)
    assert [str(channel.state) for channel in pool.stats().channels] == ["lost", "ready"]
    factory.made[0].set_state(grpc.ChannelConnectivity.READY)
    clock.advance(0.25)
    assert [str(channel.state) for channel in pool.stats().channels] == ["ready", "ready"]
    assert pool.stats().opened == 2


def test_a_loss_leads_to_a_check_of_the_others(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A server that goes away takes many connections: those that no call fails on are found as soon as gRPC knows."""
    factory = FakeFactory(lambda: FakeChannel({FAIL: _reset}))
    pool = make_pool(factory, min_size=3, max_size=3)
    pool.open()
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    for channel in factory.made:
        channel.set_state(grpc.ChannelConnectivity.IDLE)
    clock.advance(0.02)
    assert [str(channel.state) for channel in pool.stats().channels] == ["lost"] * 3


def test_losses_one_after_the_other_are_few_checks(make_pool: PoolMaker, clock: ManualClock) -> None:
    """However many losses there are, 100 connections are checked ten times a second at most."""
    factory = FakeFactory(FakeChannel)
    pool = make_pool(factory, min_size=100, max_size=100)
    pool.open()
    checks = 0
    (slot, *_) = pool._driver.machine.fleet.slots
    is_up = slot.channel.is_up

    def counted(*, connect: bool) -> bool:
        nonlocal checks
        checks += 1
        return bool(is_up(connect=connect))

    slot.channel.is_up = counted
    for channel in factory.made[1:]:
        channel.set_state(grpc.ChannelConnectivity.IDLE)
        clock.advance(0.015)
    assert 5 <= checks <= 15
    clock.advance(0.4)
    assert pool.stats().ready == 1


@pytest.mark.parametrize("details", ["Socket closed", "recvmsg:Connection reset by peer", "GOAWAY received"])
def test_a_failed_call_shows_the_loss(make_pool: PoolMaker, clock: ManualClock, details: str) -> None:
    """What gRPC says is believed at once, even if the channel's state does not show the loss yet."""

    def fail(_: bytes) -> bytes:
        raise error(grpc.StatusCode.UNAVAILABLE, details)

    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: fail})), max_size=1)
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    with pytest.raises(PoolTimeoutError, match=details) as caught:
        pool.acquire(timeout=0)
    assert details in str(caught.value.__cause__)
    clock.advance(1.0)
    assert pool.stats().ready == 1


def test_when_all_are_down_they_still_count(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Lost connections are left to gRPC's own reconnecting, not dialled again; errors meanwhile name the loss."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2, max_size=2)
    pool.open()
    for channel in factory.made:
        channel.set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    clock.advance(1.0)
    with pytest.raises(PoolTimeoutError, match=r"2 of 2 connections open \(2 of them down\)"):
        pool.acquire(timeout=0)
    assert factory.calls == 2


def test_what_fails_while_others_rest_is_not_alone(make_pool: PoolMaker, clock: ManualClock) -> None:
    """When a call fails on a connection that had rested, those that rested as long are replaced."""
    factory = FakeFactory(lambda: FakeChannel({ECHO: _reset}))
    pool = make_pool(factory, min_size=3, max_size=3)
    pool.open()
    clock.advance(2.0)
    factory.made[0].set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    while pool.stats().ready == 3:
        with pytest.raises(grpc.RpcError):
            pool.unary_unary(ECHO)(b"")
    eventually(lambda: pool.stats().ready >= 2)
    assert pool.stats().closed["lost"] == 2
    assert factory.calls == 5


@pytest.mark.parametrize("streams", [None, 1])
def test_what_fails_on_a_lease_while_others_rest_is_not_alone(
    make_pool: PoolMaker, clock: ManualClock, streams: int | None
) -> None:
    """The same when the call that fails is on a lease."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({ECHO: _reset})), min_size=3, max_size=3)
    pool.open()
    clock.advance(2.0)
    with pool.acquire(streams=streams) as lease, pytest.raises(grpc.RpcError):
        lease.unary_unary(ECHO)(b"")
    eventually(lambda: pool.stats().ready >= 2)
    assert pool.stats().closed["lost"] == 2


def test_what_fails_on_a_lease_that_was_in_use_is_alone(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A call on a lease that fails just after another was answered says nothing of connections that rested."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({ECHO: lambda request: request, FAIL: _reset})), min_size=3)
    pool.open()
    clock.advance(2.0)
    with pool.acquire() as lease:
        clock.advance(2.0)
        lease.unary_unary(ECHO)(b"")
        with pytest.raises(grpc.RpcError):
            lease.unary_unary(FAIL)(b"")
    assert pool.stats().closed["lost"] == 0


def _reset(_: bytes) -> bytes:
    raise error(grpc.StatusCode.UNAVAILABLE, "Connection reset")


def test_relayed_words_cost_one_connection_a_moment(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A server that relays gRPC's words for a loss takes one connection out of service, once, until that is checked."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: _reset})), min_size=2, max_size=4)
    pool.open()

    def fail() -> int:
        with pytest.raises(grpc.RpcError):
            pool.unary_unary(FAIL)(b"")
        return pool.stats().ready

    assert [fail() for _ in range(4)] == [1, 1, 1, 1]
    clock.advance(0.02)
    assert pool.stats().ready == 2
    assert [fail() for _ in range(4)] == [2, 2, 2, 2]
    assert pool.stats().opened == 2


@pytest.mark.parametrize("wrong_before", [False, True])
def test_relayed_words_do_not_cost_all_connections_in_doubt(
    make_pool: PoolMaker, clock: ManualClock, wrong_before: bool
) -> None:
    """Two real losses put the others in doubt. If words were wrong of late they stay; if not, they are back in time."""
    factory = FakeFactory(lambda: FakeChannel({FAIL: _reset}))
    pool = make_pool(factory, min_size=30, max_size=30)
    pool.open()

    def fail() -> int:
        with pytest.raises(grpc.RpcError):
            pool.unary_unary(FAIL)(b"")
        return pool.stats().ready

    if wrong_before:
        fail()
        clock.advance(0.03)
    for channel in factory.made[:2]:
        channel.set_state(grpc.ChannelConnectivity.IDLE)
    eventually(lambda: fail() < 28 or pool.stats().lost >= 2)
    left = [fail() for _ in range(28)][-1]
    assert left >= 28 if wrong_before else left == 0
    for _ in range(6):
        clock.advance(0.01)
    assert pool.stats().ready >= 28


def test_a_connection_lost_by_the_word_of_a_call_is_not_back_at_once(make_pool: PoolMaker, clock: ManualClock) -> None:
    """When the others are checked, a moment later, gRPC may not have noticed yet what the call said."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: _reset})), min_size=2, max_size=2)
    pool.open()
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    for _ in range(9):
        clock.advance(0.002)
        assert pool.stats().ready == 1
    clock.advance(0.003)
    assert pool.stats().ready == 2


def test_a_connection_is_not_back_by_a_check_that_began_before(make_pool: PoolMaker, clock: ManualClock) -> None:
    """What gRPC says as a call fails may be older than what the call says."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: _reset})), max_size=1)
    pool.open()
    (slot,) = pool._driver.machine.fleet.slots
    is_up = slot.channel.is_up

    def failing_meanwhile(*, connect: bool) -> bool:
        slot.channel.is_up = is_up
        up = bool(is_up(connect=connect))
        with pytest.raises(grpc.RpcError):
            pool.unary_unary(FAIL)(b"")
        return up

    slot.channel.is_up = failing_meanwhile
    clock.advance(1.0)
    assert slot.channel.is_up is is_up
    assert pool.stats().ready == 0
    clock.advance(0.02)
    assert pool.stats().ready == 1


def test_words_are_believed_after_one_of_a_connection_that_was_retired(
    make_pool: PoolMaker, clock: ManualClock
) -> None:
    """Nobody checks what is retired as a call fails on it; what calls say of others counts."""
    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: _reset})), min_size=1, max_size=2)
    pool.open()
    (slot,) = pool._driver.machine.fleet.slots

    def retired_meanwhile() -> grpc.ChannelConnectivity:
        pool.refresh()
        eventually(lambda: slot.state == "draining")
        return grpc.ChannelConnectivity.READY

    slot.channel.state = retired_meanwhile
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    eventually(lambda: pool.stats().size == pool.stats().ready == 1)
    clock.advance(1.0)
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    assert pool.stats().ready == 0


def test_a_connection_is_checked_after_a_call_that_was_interrupted(
    make_pool: PoolMaker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a signal handler raises as a call reports a loss, the connection stays, and is checked as before."""
    factory = FakeFactory(lambda: FakeChannel({FAIL: _reset}))
    pool = make_pool(factory, max_size=1)
    pool.open()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool._driver.losses, "_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.unary_unary(FAIL)(b"")
    monkeypatch.undo()
    factory.made[0].set_state(grpc.ChannelConnectivity.IDLE)
    clock.advance(1.0)
    assert pool.stats().ready == 0


def test_a_connection_that_is_not_missed_is_not_reconnected(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A lost connection that carries nothing, above `min_size`, is left alone; the next ask gets a successor."""
    factory = FakeFactory(lambda: FakeChannel({ECHO: bytes}))
    pool = make_pool(factory, min_size=0, max_size=1)
    pool.unary_unary(ECHO)(b"")
    asked = _checks(pool)
    factory.made[0].set_state(grpc.ChannelConnectivity.IDLE)
    for _ in range(20):
        clock.advance(1.0)
    assert pool.stats().channels[0].state == "lost"
    assert not any(asked)
    assert factory.calls == 1
    pool.acquire(timeout=20).release()
    assert factory.calls == 2


def test_a_connection_that_is_missed_later_is_reconnected_then(make_pool: PoolMaker, clock: ManualClock) -> None:
    """While it is not needed it is left alone; then it is made to connect, before it is replaced."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2, max_size=2)
    pool.open()
    pool.resize(min_size=1)
    asked = _checks(pool)
    factory.made[0].set_state(grpc.ChannelConnectivity.IDLE)
    clock.advance(0.4)
    clock.advance(0.4)
    assert pool.stats().lost == 1
    assert not any(asked)
    pool.resize(min_size=2)
    clock.advance(0.4)
    assert any(asked)
    factory.made[0].set_state(grpc.ChannelConnectivity.READY)
    clock.advance(0.4)
    assert pool.stats().ready == 2
    assert factory.calls == 2


def _checks(pool: ChannelPool) -> list[bool]:
    """Of each check of the oldest connection from now on: whether it makes that connect."""
    slot = next(iter(pool._driver.machine.fleet.slots))
    asked: list[bool] = []
    is_up = slot.channel.is_up

    def seen(*, connect: bool) -> bool:
        asked.append(connect)
        return bool(is_up(connect=connect))

    slot.channel.is_up = seen
    return asked


@pytest.mark.parametrize("how", ["call", "future"])
def test_a_call_that_waits_for_ready_does_not_begin_on_a_lost_connection(
    make_pool: PoolMaker, clock: ManualClock, how: str
) -> None:
    """It would make the channel connect at the same moment as all others to that server. Another connection serves."""
    numbers = iter(range(2))

    def make() -> FakeChannel:
        number = next(numbers)
        return FakeChannel({ECHO: lambda _: b"%d" % number})

    factory = FakeFactory(make)
    pool = make_pool(factory, min_size=2, max_size=2)
    pool.open()
    factory.made[0].set_state(grpc.ChannelConnectivity.IDLE)
    echo: Any = pool.unary_unary(ECHO)
    # Which of the two is looked at first is random.
    while not pool.stats().lost:
        answer = echo(b"", wait_for_ready=True) if how == "call" else echo.future(b"", wait_for_ready=True).result(10)
        assert answer == b"1"
    assert (pool.stats().ready, pool.stats().lost, pool.stats().in_flight) == (1, 1, 0)


def test_a_channel_whose_lock_is_held_for_ever(make_pool: PoolMaker) -> None:
    """Deadlines hold, other connections serve, and the connection is replaced; gRPC's lock may never be released."""
    factory = FakeFactory(lambda: FakeChannel({ECHO: bytes}))
    pool = make_pool(factory, min_size=2, max_size=2)
    pool.open()
    stuck, other = pool._driver.machine.fleet.slots
    free = threading.Event()
    is_up = stuck.channel.is_up

    def blocks(**how: Any) -> bool:
        free.wait(30)
        return bool(is_up(**how))

    stuck.channel.is_up = blocks
    eventually(lambda: str(stuck.state) != "ready")
    with pool.acquire(timeout=1) as lease:
        assert lease._slot is not stuck
        assert str(other.state) == "ready"
    eventually(lambda: pool.stats().closed["lost"] == 1, timeout=10)
    eventually(lambda: pool.stats().ready == 2)
    free.set()


class _SoftTimeLimitError(Exception):
    """What a signal handler raises."""


def test_a_call_that_a_signal_handler_interrupted(make_pool: PoolMaker, clock: ManualClock) -> None:
    """The channel is not used again before it has been seen that gRPC did not keep its lock. No loss is counted."""

    def interrupted(_: bytes) -> bytes:
        raise KeyboardInterrupt

    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: _within_grpc(interrupted)})), max_size=1)
    with pytest.raises(KeyboardInterrupt):
        pool.unary_unary(FAIL)(b"")
    assert (pool.stats().ready, pool.stats().in_flight) == (0, 0)
    clock.advance(0.01)
    assert pool.stats().ready == 1
    with pool.acquire(timeout=1) as lease, pytest.raises(KeyboardInterrupt):
        lease.unary_unary(FAIL)(b"")
    assert pool.stats().ready == 0
    clock.advance(0.01)
    assert pool.stats().ready == 1
    assert pool.stats().losses == 0


def _within_grpc(behavior: Callable[..., bytes]) -> Callable[..., bytes]:
    """Calls `behavior` from code that looks, in a traceback, like that of gRPC's channel."""
    module: dict[str, Any] = {"__name__": "grpc._channel", "behavior": behavior}
    exec("def call(*arguments): return behavior(*arguments)", module)  # noqa: S102 -- the text is above
    call: Callable[..., bytes] = module["call"]
    return call


class _Raising(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc,unused-ignore]
    """An interceptor of the factory's channel that raises before or after the call, or instead of it."""

    def __init__(self, when: str) -> None:
        self._when = when

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if self._when == "after":
            continuation(details, request).result()
        raise _SoftTimeLimitError


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_an_interceptor_raises_is_no_loss(make_pool: PoolMaker, clock: ManualClock, when: str) -> None:
    """The channel is fine, and is used at once: gRPC has returned, or was not called."""
    pool = make_pool(lambda: grpc.intercept_channel(FakeChannel({ECHO: bytes}), _Raising(when)), max_size=1)
    with pytest.raises(_SoftTimeLimitError):
        pool.unary_unary(ECHO)(b"")
    assert (pool.stats().ready, pool.stats().in_flight) == (1, 0)
    with pool.acquire(timeout=0) as lease, pytest.raises(_SoftTimeLimitError):
        lease.unary_unary(ECHO)(b"")
    assert (pool.stats().ready, pool.stats().in_flight) == (1, 0)


class _InterruptedStarts(FakeChannel):
    """A channel within which a signal handler raises whenever a call is begun."""

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(future=_within_grpc(_interrupted))

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        return _within_grpc(_interrupted)

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(future=_within_grpc(_interrupted))

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return _within_grpc(_interrupted)


def _interrupted(*_: Any) -> bytes:
    raise _SoftTimeLimitError


@pytest.mark.parametrize("on", ["pool", "lease"])
@pytest.mark.parametrize(
    "begin",
    [
        lambda channel: channel.unary_unary(ECHO).future(b""),
        lambda channel: channel.unary_stream(ECHO)(b""),
        lambda channel: channel.stream_unary(ECHO).future(iter([b""])),
        lambda channel: channel.stream_stream(ECHO)(iter([b""])),
    ],
    ids=["unary_unary", "unary_stream", "stream_unary", "stream_stream"],
)
def test_a_call_that_was_interrupted_as_it_began(
    make_pool: PoolMaker, clock: ManualClock, begin: Callable[[grpc.Channel], Any], on: str
) -> None:
    """As above: the channel is checked before it is used again."""
    pool = make_pool(FakeFactory(_InterruptedStarts), max_size=1)
    pool.acquire().release()
    with pool.acquire() if on == "lease" else nullcontext(pool) as channel, pytest.raises(_SoftTimeLimitError):
        begin(channel)
    assert (pool.stats().ready, pool.stats().in_flight) == (0, 0)
    clock.advance(0.01)
    assert pool.stats().ready == 1


def test_metadata_that_raises_is_no_loss(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Metadata may be an iterator of the caller's, whose error says nothing of the connection."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield "key", "value"
        raise _SoftTimeLimitError

    pool = make_pool(FakeFactory(lambda: FakeChannel({ECHO: _within_grpc(bytes)})), max_size=1)
    with pytest.raises(_SoftTimeLimitError):
        pool.unary_unary(ECHO)(b"", metadata=pairs())
    with pool.acquire(timeout=1) as lease, pytest.raises(_SoftTimeLimitError):
        lease.unary_unary(ECHO)(b"", metadata=pairs())
    assert (pool.stats().ready, pool.stats().in_flight) == (1, 0)
