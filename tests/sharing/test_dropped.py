"""Handles that are dropped: unused, with a call that waits, with a subscription, and as the interpreter ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
import threading
import weakref
from types import FrameType
from typing import Any

import grpc
import pytest

import grpcpool.aio
from grpcpool import PoolConfig
from grpcpool._sync import shared as threads
from sharing import parts
from support.call_server import UU, CallServer
from support.connections import connections_to
from support.loops import in_loop, until
from support.programs import run_python
from support.servers import ECHO, Server
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_unused_pool_is_collected(world: Any) -> None:
    """A pool is collected together with its last handle, if nothing has used it."""
    handles = [world.shared_channel("127.0.0.1:1", name="unused") for _ in range(2)]
    pool = weakref.ref(handles[0]._pool)
    assert handles[1]._pool is pool()
    handles.pop()
    gc.collect()
    assert pool() is not None
    handles.clear()
    # The first collection may only run finalizers.
    gc.collect()
    gc.collect()
    assert pool() is None


def test_a_call_that_waits_keeps_the_pool() -> None:
    """As one that runs does: the pool has no handle any more, and the call is answered once the server is up."""
    with Server() as server:
        server.kill()
        handle = grpcpool.shared_channel(server.target)
        shared = handle._shared  # type: ignore[attr-defined]
        echo: Any = handle.unary_unary(ECHO)
        call = echo.future(b"x", timeout=LONG, wait_for_ready=True)
        del handle, echo
        gc.collect()
        eventually(lambda: shared.over)
        server.restart()
        assert call.result(LONG) == b"x"


@in_loop
async def test_a_call_that_waits_keeps_the_pool_on_asyncio() -> None:
    """The same on asyncio, where nothing of a handle is left in a line that awaits a call."""
    with Server() as server:
        await asyncio.to_thread(server.kill)
        handle = grpcpool.aio.shared_channel(server.target)
        shared = handle._shared  # type: ignore[attr-defined]
        echo: Any = handle.unary_unary(ECHO)
        call = asyncio.ensure_future(_result(echo(b"x", timeout=LONG, wait_for_ready=True)))
        await asyncio.sleep(0)
        del handle, echo
        gc.collect()
        await until(lambda: shared.over)
        await asyncio.to_thread(server.restart)
        assert await call == b"x"


async def _result(call: Any) -> Any:
    return await call


def test_a_subscription_is_the_handles_own(calls: CallServer) -> None:
    """Closing a handle, or dropping it, ends its own subscriptions, and none of others with an equal callback."""
    states: list[grpc.ChannelConnectivity] = []
    callback = states.append
    ours = grpcpool.shared_channel(calls.target)
    for drop in (lambda handle: handle.close(), lambda handle: None):
        other = grpcpool.shared_channel(calls.target)
        other.subscribe(callback)
        other.unsubscribe(callback)
        ours.subscribe(callback)
        other.subscribe(callback)
        drop(other)
        del other
        gc.collect()
        eventually(lambda: len(ours._driver.subscriptions.subscribers) == 1)
        ours.unsubscribe(callback)
        assert not ours._driver.subscriptions.subscribers
    for _ in range(3):
        grpc.channel_ready_future(ours).cancel()
    assert ours._subscribed == []  # type: ignore[attr-defined]
    ours.close()


def test_a_pool_lingers_from_its_last_release(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles that came and went before do not shorten that."""
    monkeypatch.setattr(threads, "LINGERS_FOR", 0.5)
    first = grpcpool.shared_channel(calls.target)
    shared = first._shared  # type: ignore[attr-defined]
    first.close()
    second = grpcpool.shared_channel(calls.target)
    second.close()
    assert second._shared is shared  # type: ignore[attr-defined]
    # The moment of the first.
    assert not threads._pools.expire(shared, 1)
    eventually(lambda: shared.over)


_AT_THE_END = """
import sys, threading, time, types
import grpc
import grpcpool

class Client:
    def __init__(self, channel):
        self.channel = channel
    def __del__(self):
        self.channel.close()

def run():
    while True:
        time.sleep(0.05)

with grpcpool.patched():
    client = Client({made})
others = sys.modules["others"] = types.ModuleType("others")
others.client = client
del client, others
threading.Thread(target=run, daemon=True).start()
"""


@pytest.mark.parametrize(
    "made",
    [
        "grpcpool.shared_channel('127.0.0.1:1')",
        "grpcpool.insecure_channel('127.0.0.1:1')",
        "grpc.insecure_channel('127.0.0.1:1')",
    ],
    ids=["shared", "own", "patched"],
)
def test_closed_as_the_interpreter_ends(made: str) -> None:
    """By a finalizer that runs when no thread can be started any more, while a daemon thread is still there."""
    run_python(_AT_THE_END.format(made=made), seconds=20)


def test_a_last_call_as_the_interpreter_ends(calls: CallServer) -> None:
    """A finalizer makes a call over a pool to a name, which has to be looked up first."""
    program = """
import sys, threading, time
import grpcpool

class Client:
    def __init__(self, channel):
        self.flush = channel.unary_unary(sys.argv[1])
    def __del__(self):
        try:
            print(self.flush(b"ok", timeout=5))
        except BaseException as error:
            print(type(error))

def run():
    while True:
        time.sleep(0.05)

sys.modules["others"] = Client(grpcpool.insecure_channel(f"localhost:{sys.argv[2]}"))
threading.Thread(target=run, daemon=True).start()
"""
    assert run_python(program, UU, str(calls.port), seconds=20).stdout


class _Client:
    """Gives its channel methods of its own."""

    def __init__(self, world: Any, part: str, target: str = "127.0.0.1:1") -> None:
        """The channel is `self.channel`."""
        self.channel: Any
        if part == "credentials":
            self.channel = world.shared_channel(target, self.credentials)
        elif part == "prime":
            self.channel = world.shared_channel(target, config=PoolConfig(prime=self.prime))
        elif part == "closure":
            self.channel = world.shared_channel(target, lambda: (self, parts.credentials())[1])
        else:
            self.channel = copy.copy(world.ChannelPool(self.create))

    def credentials(self) -> grpc.ChannelCredentials:
        return parts.credentials()

    def prime(self, channel: Any) -> None:
        """Does nothing."""

    def create(self) -> Any:
        raise AssertionError


@pytest.mark.parametrize("part", ["credentials", "prime", "closure", "factory"])
@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_methods_do_not_keep_their_object(world: Any, part: str) -> None:
    """A client whose channel has a method of the client is collected, and its pool with it."""
    client = _Client(world, part)
    gone = [weakref.ref(client), weakref.ref(client.channel), weakref.ref(client.channel._pool)]
    del client
    gc.collect()
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_methods_do_not_keep_connections(calls: CallServer) -> None:
    """A pool that was used is closed when its client is collected; until then, equal methods lead to it."""
    client = _Client(grpcpool, "prime", calls.target)
    assert client.channel.unary_unary(UU)(b"ok", timeout=20) == b"0"
    with grpcpool.shared_channel(calls.target, config=PoolConfig(prime=client.prime)) as other:
        assert other.stats().acquired == 1
    del other
    assert connections_to(calls.port) == 1
    del client
    gc.collect()
    eventually(lambda: connections_to(calls.port) == 0)


class _InterruptedError(BaseException):
    """Raised by a signal handler."""


def _interrupt_at(number: int) -> list[str]:
    """Raises in this thread when the package comes to that point; returns a list of the points before it."""
    passed: list[str] = []

    def look(frame: FrameType, event: str, what: Any) -> None:
        # Python runs no signal handler between the entry of a lock and its block.
        ours = str(frame.f_globals.get("__name__")).startswith("grpcpool.")
        if ours and event in ("call", "c_return") and getattr(what, "__name__", "") != "__enter__":
            passed.append(event)
            if len(passed) == number:
                sys.setprofile(None)
                raise _InterruptedError

    sys.setprofile(look)
    return passed


def test_a_release_that_is_interrupted_counts_once() -> None:
    """It is done again; the pool stays open for another handle."""
    kept = []
    for number in range(1, 500):
        dropped, other = (grpcpool.shared_channel(f"interrupted-{number}:1") for _ in range(2))
        other.resize(max_size=7)
        del dropped
        passed = _interrupt_at(number)
        try:
            other.stats()
        except _InterruptedError:
            pass
        finally:
            sys.setprofile(None)
        other.stats()
        kept.append(other)
        if len(passed) < number:
            break
    assert 10 < len(kept) < 499
    eventually(lambda: not [each for each in threading.enumerate() if each.name == "grpcpool-shared"])
    for number, _ in enumerate(kept, 1):
        with grpcpool.shared_channel(f"interrupted-{number}:1") as found:
            assert found.config.max_size == 7
