"""Looking addresses up: what fails, hangs or returns rubbish, and the user's own `addresses`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import grpcpool
from addresses.fleet import LOOK_UP_EVERY, NAME, OFTEN, Servers, hosts, pid_of
from grpcpool.events import AddressesChanged, LookUpFailed, OpenFailed
from resilience.tasks import LoopThread, Tasks
from resilience.worlds import Subject, World, failure_of
from support.dns import DnsServer, asked_by_this_process
from support.loops import KINDS, in_loop, loops_of, run, until
from support.pools import Recorder
from support.servers import PID, RECONNECT_SOON, unary
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(90)

OPTIONS = [*OFTEN, *RECONNECT_SOON]
# Seconds for which a look-up may delay the first call, and some more on a busy machine.
FIRST_WAIT = 1.0
SLACK = 1.5


def error_of_grpc(target: str) -> tuple[Any, Any]:
    """Code and details with which a call over gRPC's own channel fails."""
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
        unary(channel, PID, b"")
    return _status_of(caught.value)


def error_of(subject: Subject) -> tuple[Any, Any]:
    """Code and details with which a call over the pool fails."""
    error = failure_of(subject.begin(PID, b""))
    assert isinstance(error, grpc.RpcError)
    return _status_of(error)


def _status_of(error: Any) -> tuple[Any, Any]:
    # Before 1.80, the details name the record that was asked for last, of two at once.
    return error.code(), re.sub("qtype=A+ ", "", error.details())


# --- names -----------------------------------------------------------------------------------------------------------


def nonexistent(dns: DnsServer) -> None:
    """The name does not exist."""
    assert not dns.asked


def empty(dns: DnsServer) -> None:
    """The name has no address."""
    dns.set(NAME)


def failing(dns: DnsServer) -> None:
    """The server fails."""
    dns.fails = True


def silent(dns: DnsServer) -> None:
    """The server does not answer."""
    dns.is_silent = True


TROUBLES = [nonexistent, empty, failing, silent]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_first_look_up_without_result_is_left_to_grpc(
    world: World, servers: Servers, dns: DnsServer, trouble: Callable[[DnsServer], None]
) -> None:
    """The call fails as over a plain channel, with the error of gRPC's own resolver; it does not wait for long."""
    recorder = Recorder()
    trouble(dns)
    with world.pool(servers.name, options=OPTIONS, how={"listeners": [recorder]}) as subject:
        began = time.monotonic()
        assert error_of(subject) == error_of_grpc(servers.name)
        assert time.monotonic() - began < FIRST_WAIT + SLACK
        eventually(lambda: recorder.of(LookUpFailed))
        assert isinstance(recorder.of(LookUpFailed)[0].error, OSError)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_name_that_comes_into_being(
    world: World, servers: Servers, dns: DnsServer, trouble: Callable[[DnsServer], None]
) -> None:
    """Once a look-up succeeds, calls do, and each address has its connection."""
    trouble(dns)
    with world.pool(servers.name, options=OPTIONS) as subject:
        error_of(subject)
        dns.is_silent = dns.fails = False
        dns.set(NAME, *hosts(2))

        def answered() -> bool:
            call = subject.begin(PID, b"")
            return call.exception(LONG) is None

        eventually(answered)
        eventually(lambda: servers.connections(2) == [1, 1])


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_later_look_up_without_result_changes_nothing(
    world: World, servers: Servers, dns: DnsServer, trouble: Callable[[DnsServer], None]
) -> None:
    """The last good list stays."""
    dns.set(NAME, *hosts(3))
    recorder = Recorder()
    with world.pool(servers.name, options=OPTIONS, how={"listeners": [recorder]}) as subject:
        with subject.load(6, PID, b"20") as load:
            eventually(lambda: servers.connections(3) == [1, 1, 1])
            dns.forget(NAME)
            dns.asked.clear()
            trouble(dns)
            eventually(lambda: len(recorder.of(LookUpFailed)) >= 2)
            load.wait_for_calls(12)
            assert servers.connections(3) == [1, 1, 1]
        load.assert_none_failed()
        assert subject.stats().opened == 3
        assert len(recorder.of(AddressesChanged)) == 1


def test_closing_does_not_wait_for_a_look_up(world: World, servers: Servers) -> None:
    """`close()` returns at once while a look-up hangs, and nothing comes of its end."""
    recorder = Recorder()
    with DnsServer() as dns, asked_by_this_process(dns, lifetime=2.0):
        silent(dns)
        with world.pool(servers.name, how={"listeners": [recorder]}) as subject:
            call = subject.begin(PID, b"")
            eventually(lambda: subject.stats().opening)
            began = time.monotonic()
            subject.close()
            assert time.monotonic() - began < 0.5
            failure_of(call)
        told = len(recorder.told)
        # The resolver's thread ends at its own time limit.
        eventually(lambda: not _looking_up(), timeout=5)
        assert len(recorder.told) == told


# --- the user's own discovery ----------------------------------------------------------------------------------------


class Discovery:
    """The user's own `addresses`: returns what a test sets, or raises it, or blocks."""

    def __init__(self, *found: str) -> None:
        """Returns these."""
        self.found: Any = [*found]
        self.calls = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self) -> Any:
        """Called by the pool."""
        self.calls += 1
        assert self.may_go_on.wait(LONG)
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


def of(servers: Servers, number: int) -> list[str]:
    """The first addresses of the servers."""
    return [server.target for server in servers][:number]


def test_a_callable_is_asked_for_addresses(world: World, servers: Servers) -> None:
    """It is called again while the pool is in use, and what it returns then is followed."""
    discovery = Discovery(*of(servers, 2))
    with world.pool("orders", options=OPTIONS, how={"addresses": discovery}) as subject:
        with subject.load(6, PID, b"20") as load:
            eventually(lambda: servers.connections(3) == [1, 1, 0])
            discovery.found = iter(of(servers, 3)[1:])
            eventually(lambda: servers.connections(3) == [0, 1, 1])
        load.assert_none_failed()
        assert subject.stats().target == "orders"


def test_names_may_be_among_the_addresses(world: World, servers: Servers) -> None:
    """An address may be a name, which gRPC looks up."""
    discovery = Discovery(f"localhost:{servers.port}", servers[0].target)
    with world.pool("orders", options=OPTIONS, how={"addresses": discovery}) as subject:
        pid_of(subject)
        assert {channel.address for channel in subject.stats().channels} <= {*discovery.found}


@pytest.mark.parametrize(
    "rubbish", [None, [], "127.0.0.2:1", b"127.0.0.3:1", 5, [5], [""], [None], RuntimeError("registry down")]
)
def test_rubbish_at_first_fails_dials(world: World, servers: Servers, rubbish: Any) -> None:
    """What it raises, and a wrong result, fail dials and calls, which say why; gRPC is not asked for the target."""
    recorder = Recorder()
    discovery = Discovery()
    discovery.found = rubbish
    how = {"addresses": discovery, "listeners": [recorder]}
    with world.pool(servers[1].target, options=OPTIONS, how=how) as subject:
        code, details = error_of(subject)
        eventually(lambda: recorder.of(OpenFailed))
        error = recorder.of(LookUpFailed)[0].error
        assert isinstance(error, type(rubbish) if isinstance(rubbish, Exception) else TypeError | ValueError)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == str(error)
        assert recorder.of(OpenFailed)[0].error is error
        waits = subject.begin(PID, b"", wait_for_ready=True)
        discovery.found = of(servers, 1)
        assert waits.result(LONG) == str(servers[0].pid).encode()
        assert servers.connections(2) == [1, 0]


def test_open_fails_with_the_error_of_the_discovery(servers: Servers, world: World) -> None:
    """As with that of a factory. The name of the target need not exist, and another `open()` may succeed."""
    discovery = Discovery()
    discovery.found = RuntimeError("registry down")
    with world.pool("orders.invalid:1", options=OPTIONS, how={"addresses": discovery}) as subject:
        with pytest.raises(grpcpool.PoolOpenError, match="registry down") as raised:
            subject.open(timeout=LONG)
        assert raised.value.__cause__ is discovery.found
        discovery.found = of(servers, 1)
        subject.open(timeout=LONG)
        assert servers.connections(1) == [1]


@pytest.mark.parametrize("rubbish", [None, [], "127.0.0.2:1", [5], RuntimeError("registry down")])
def test_rubbish_later_changes_nothing(world: World, servers: Servers, rubbish: Any) -> None:
    """The last good list stays."""
    recorder = Recorder()
    discovery = Discovery(*of(servers, 2))
    how = {"addresses": discovery, "listeners": [recorder]}
    with world.pool("orders", options=OPTIONS, how=how) as subject:
        with subject.load(4, PID, b"20") as load:
            eventually(lambda: servers.connections(2) == [1, 1])
            discovery.found = rubbish
            eventually(lambda: len(recorder.of(LookUpFailed)) >= 2)
            load.wait_for_calls(8)
            assert servers.connections(2) == [1, 1]
            discovery.found = of(servers, 3)
            eventually(lambda: servers.connections(3) == [1, 1, 1])
        load.assert_none_failed()


def test_a_callable_that_blocks_blocks_nothing_else(world: World, servers: Servers) -> None:
    """Calls on the connections that are there go on, and `stats` and `close` return at once."""
    discovery = Discovery(*of(servers, 2))
    with world.pool("orders", options=OPTIONS, how={"addresses": discovery}) as subject:
        with subject.load(4, PID, b"20") as load:
            eventually(lambda: servers.connections(2) == [1, 1])
            before = discovery.calls
            discovery.may_go_on.clear()
            eventually(lambda: discovery.calls > before)
            load.wait_for_calls(40)
            # No second look-up begins beside it.
            assert discovery.calls == before + 1
        load.assert_none_failed()
        began = time.monotonic()
        subject.close()
        assert time.monotonic() - began < 0.5
        discovery.may_go_on.set()


def test_a_callable_that_blocks_at_first(world: World, servers: Servers) -> None:
    """Calls wait for it for `connect_timeout`, and then fail; what the callable returns in the end is used."""
    discovery = Discovery(*of(servers, 2)[1:])
    discovery.may_go_on.clear()
    how = {"addresses": discovery}
    with world.pool(servers[0].target, options=OPTIONS, how=how, connect_timeout=0.5) as subject:
        began = time.monotonic()
        code, details = error_of(subject)
        assert 0.5 <= time.monotonic() - began < 0.5 + SLACK
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "addresses() has not returned within connect_timeout, 0.5 s" in details
        waits = subject.begin(PID, b"", wait_for_ready=True)
        discovery.may_go_on.set()
        assert waits.result(LONG) == str(servers[1].pid).encode()
        assert servers.connections(2) == [0, 1]
        assert discovery.calls == 1


class HangsOnce(Discovery):
    """One of its calls hangs, the others do not."""

    def __init__(self, call: int, *found: str) -> None:
        """Call number `call` hangs; the others return these."""
        super().__init__(*found)
        self.hangs = call
        self.may_go_on.clear()

    def __call__(self) -> Any:
        """Called by the pool."""
        if self.calls + 1 != self.hangs:
            self.calls += 1
            return self.found
        return super().__call__()


@pytest.mark.parametrize("call", [1, 2])
def test_a_callable_that_hangs_once(world: World, mortals: Callable[[int], Servers], call: int) -> None:
    """It is called again after `connect_timeout`: a new address is found, and what it returned before is not missed."""
    servers = mortals(2)
    recorder = Recorder()
    discovery = HangsOnce(call, *of(servers, 1))
    how = {"addresses": discovery, "listeners": [recorder]}
    with world.pool("orders", options=OPTIONS, how=how, connect_timeout=1.0) as subject:
        if call > 1:
            pid_of(subject)
            eventually(lambda: discovery.calls == call)
            discovery.found = of(servers, 2)[1:]
            servers[0].kill()
            # Else the call may reach the dying server, and is not repeated.
            eventually(lambda: subject.pool.stats().lost)
        waits = subject.begin(PID, b"", wait_for_ready=True)
        assert waits.result(LONG) == str(servers[call - 1].pid).encode()
        assert discovery.calls > call
        assert str(recorder.of(LookUpFailed)[0].error) == "addresses() has not returned within connect_timeout, 1.0 s"
        discovery.may_go_on.set()
    eventually(lambda: not _looking_up())


@in_loop
async def test_a_coroutine_function_that_hangs_is_cancelled(servers: Servers) -> None:
    """When a later call of it has returned: not before, because until then it may still be the first."""
    ended: list[tuple[int, int]] = []
    calls = 0

    async def addresses() -> list[str]:
        nonlocal calls
        calls += 1
        mine = calls
        try:
            if mine <= 2:
                await asyncio.Event().wait()
        finally:
            ended.append((mine, calls))
        return of(servers, 1)

    config = grpcpool.PoolConfig(connect_timeout=0.5)
    async with grpcpool.aio.insecure_channel("orders", OPTIONS, addresses=addresses, config=config) as pool:
        method: Any = pool.unary_unary(PID)
        assert await method(b"", timeout=LONG, wait_for_ready=True) == str(servers[0].pid).encode()
        await until(lambda: len(ended) >= 3)
        assert sorted(ended[:3]) == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("part", ["the resolver", "the user's own"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_look_up_that_hangs_holds_up_no_loop(monkeypatch: pytest.MonkeyPatch, kind: str, part: str) -> None:
    """The loop's executor stays the application's, and the loop ends at once, as the pool does."""
    begun, may_go_on = threading.Event(), threading.Event()

    def hangs(*_: object, **__: object) -> list[Any]:
        begun.set()
        assert may_go_on.wait(LONG)
        return []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        discovery = hangs if part == "the user's own" else None
        async with grpcpool.aio.insecure_channel("orders.test:1", addresses=discovery) as pool:
            opening = asyncio.ensure_future(pool.open())
            assert await loop.run_in_executor(None, begun.wait, LONG)
        with pytest.raises(grpcpool.PoolClosedError):
            await opening

    if part == "the resolver":
        monkeypatch.setattr(socket, "getaddrinfo", hangs)
    began = time.monotonic()
    with loops_of(kind):
        run(main())
    assert time.monotonic() - began < SLACK
    assert [thread.daemon for thread in _looking_up()] == [True]
    may_go_on.set()
    eventually(lambda: not _looking_up())


@in_loop
async def test_a_look_up_that_others_cancel_is_not_the_last(servers: Servers) -> None:
    """As code does that cancels all tasks of the loop and goes on."""
    looks: list[asyncio.Event] = []

    async def addresses() -> list[str]:
        looks.append(asyncio.Event())
        if len(looks) == 1:
            await asyncio.Event().wait()
        return of(servers, 1)

    async with grpcpool.aio.insecure_channel("orders", OPTIONS, addresses=addresses) as pool:
        method: Any = pool.unary_unary(PID)

        async def ask(**how: Any) -> Any:
            return await method(b"", timeout=LONG, **how)

        call = asyncio.ensure_future(ask())
        await until(lambda: looks)
        for task in asyncio.all_tasks() - {asyncio.current_task(), call}:
            task.cancel()
        with contextlib.suppress(grpc.RpcError):
            # It fails fast, as it would if the addresses could not be looked up.
            await call
        assert await ask(wait_for_ready=True) == str(servers[0].pid).encode()


def _looking_up() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "look-up" in thread.name]


@pytest.mark.parametrize("error", [StopIteration("none"), asyncio.CancelledError(), SystemError("broken")])
def test_a_callable_that_raises_anything(world: World, servers: Servers, error: BaseException) -> None:
    """Whatever it raises, it is called again."""
    discovery = Discovery()
    discovery.found = error
    with world.pool("orders", options=OPTIONS, how={"addresses": discovery}) as subject:
        assert error_of(subject)[0] is grpc.StatusCode.UNAVAILABLE
        discovery.found = of(servers, 1)
        assert subject.begin(PID, b"", wait_for_ready=True).result(LONG) == str(servers[0].pid).encode()


def test_a_coroutine_function(servers: Servers, world: World) -> None:
    """On asyncio it may be one, and runs on the pool's loop; with threads that is an error of the look-up."""
    threads = set()

    async def discovery() -> list[str]:
        threads.add(threading.current_thread().name)
        return of(servers, 2)

    recorder = Recorder()
    how = {"addresses": discovery, "listeners": [recorder]}
    with world.pool(servers[2].target, options=OPTIONS, how=how) as subject:
        if world.name == "threads":
            assert "coroutine functions are for grpcpool.aio" in error_of(subject)[1]
            eventually(lambda: recorder.of(LookUpFailed))
            assert "coroutine functions are for grpcpool.aio" in str(recorder.of(LookUpFailed)[0].error)
            assert servers.connections(3) == [0, 0, 0]
        else:
            pid_of(subject)
            eventually(lambda: servers.connections(3) == [1, 1, 0])
            assert threads == {"test-loop"}


def test_a_coroutine_function_that_is_cancelled(servers: Servers) -> None:
    """One that ends with `CancelledError`, although the pool is not closing, has failed; it is called again."""
    calls = []

    async def discovery() -> list[str]:
        calls.append(1)
        if len(calls) == 1:
            raise asyncio.CancelledError
        return of(servers, 1)

    recorder = Recorder()
    with LoopThread() as loop:
        how = {"addresses": discovery, "listeners": [recorder]}
        with Tasks(loop).pool(servers[1].target, options=OPTIONS, how=how) as subject:
            assert error_of(subject)[0] is grpc.StatusCode.UNAVAILABLE
            assert subject.begin(PID, b"", wait_for_ready=True).result(LONG) == str(servers[0].pid).encode()
            assert servers.connections(2) == [1, 0]
    assert [type(event.error) for event in recorder.of(LookUpFailed)] == [asyncio.CancelledError]


def test_what_cannot_be_called_is_refused() -> None:
    """At once, not at first use."""
    for insecure_channel in (grpcpool.insecure_channel, grpcpool.aio.insecure_channel):
        with pytest.raises(TypeError, match="addresses must be a callable"):
            insecure_channel("orders:1", addresses=["127.0.0.2:1"])  # type: ignore[arg-type]


def test_a_loss_is_a_reason_to_look_up(world: World, mortals: Callable[[int], Servers], dns: DnsServer) -> None:
    """At once, although the next look-up would be half a minute later: the server may have moved."""
    servers = mortals(2)
    dns.set(NAME, *hosts(1))
    with world.pool(servers.name, options=RECONNECT_SOON, max_size=2) as subject:
        pid_of(subject)
        dns.set(NAME, *hosts(2)[1:])
        time.sleep(2 * LOOK_UP_EVERY)
        assert dns.asked[NAME] == 1
        servers[0].kill()
        eventually(lambda: servers.connections() == [0, 1], timeout=2 + SLACK)
        # A connection counts from outside some milliseconds before the pool has it.
        eventually(lambda: subject.stats().ready == 1)
        assert pid_of(subject) == str(servers[1].pid).encode()
        assert dns.asked[NAME] <= 4
