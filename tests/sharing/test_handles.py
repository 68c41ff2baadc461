"""Handles on a shared pool, for threads."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
import weakref
from functools import partial
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import grpc
import pytest

import grpcpool
from grpcpool import ChannelPool, PoolClosedError, PoolConfig
from grpcpool._shared import sharing
from sharing import parts
from support.call_server import US, UU, CallServer, new_tag
from support.connections import connections_to
from support.programs import run_python
from support.waiting import background, eventually
from support.ways import NOT_BLOCKING, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)


_CLOSED = (grpc.StatusCode.CANCELLED, "Channel closed!")


def _call(channel: Any, command: bytes = b"ok") -> Any:
    return channel.unary_unary(UU)(command, timeout=20)


def test_equal_arguments_share_a_pool(calls: CallServer) -> None:
    """Each handle is a whole channel, and offers everything that the pool does."""
    with grpcpool.shared_channel(calls.target) as one, grpcpool.shared_channel(calls.target) as other:
        assert isinstance(one, ChannelPool)
        assert one is not other
        for channel in (one, other):
            assert _call(channel) == b"0"
        assert one.stats() == other.stats()
        assert (one.stats().acquired, connections_to(calls.port)) == (2, 1)
        assert (one.name, one.target, one.config) == (calls.target, calls.target, PoolConfig())
        assert repr(one).startswith(f"<handle on grpcpool.ChannelPool {calls.target!r}: 1 of 10")
        one.open()
        with other.acquire(streams=2) as lease:
            assert _call(lease) == b"0"
        one.resize(max_size=4)
        assert other.config.max_size == 4


@pytest.mark.parametrize(
    "other",
    [
        {"config": PoolConfig(max_size=2)},
        {"name": "other"},
        {"options": [("a", 1)]},
        {"credentials": parts.credentials},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_arguments_get_another_pool(other: dict[str, Any]) -> None:
    """What one of them does shows nowhere else."""
    with grpcpool.shared_channel("localhost:1") as one, grpcpool.shared_channel("localhost:1", **other) as another:
        another.resize(max_size=7)
        assert one.config.max_size == 10


def test_the_last_close_closes_the_pool(calls: CallServer) -> None:
    """Some seconds later: a handle that comes meanwhile finds the connection."""
    handles = [grpcpool.shared_channel(calls.target) for _ in range(3)]
    assert _call(handles[0]) == b"0"
    pool: Any = handles[0]
    shared = pool._shared
    for handle in handles:
        handle.close()
    assert connections_to(calls.port) == 1
    with grpcpool.shared_channel(calls.target) as late:
        assert _call(late) == b"0"
        assert late.stats().opened == 1
    eventually(lambda: shared.pool.closed)
    eventually(lambda: connections_to(calls.port) == 0)
    with grpcpool.shared_channel(calls.target) as later:
        assert _call(later) == b"0"
        assert later.stats().acquired == 1


def test_a_handle_that_is_dropped_counts_no_longer(calls: CallServer) -> None:
    """As with gRPC's channels, nothing needs to be closed."""
    handle = grpcpool.shared_channel(calls.target)
    assert _call(handle) == b"0"
    del handle
    gc.collect()
    eventually(lambda: connections_to(calls.port) == 0)


def test_a_stub_holds_its_handle(calls: CallServer) -> None:
    """And a call the pool."""
    stub = grpcpool.shared_channel(calls.target).unary_unary(UU)
    gc.collect()
    assert stub(b"ok", timeout=20) == b"0"
    tag = new_tag()
    call = stub.future(f"hold:{tag}".encode(), timeout=20)
    calls.wait_until_held(tag)
    del stub
    gc.collect()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "grpcpool-shared"])
    assert not call.done()
    call.cancel()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_close_cancels_its_own_calls(calls: CallServer, way: Way) -> None:
    """Of whatever kind, blocking ones too; those of others go on."""
    mine, others = grpcpool.shared_channel(calls.target), grpcpool.shared_channel(calls.target)
    tag, other_tag = new_tag(), new_tag()
    held = background(lambda: outcome_of(lambda: way.finish(way.begin(mine, f"hold:{tag}"))))
    other = others.unary_unary(UU).future(f"hold:{other_tag}".encode(), timeout=20)
    calls.wait_until_held(tag)
    calls.wait_until_held(other_tag)
    mine.close()
    outcome = held.result(20)
    assert outcome[1] is grpc.StatusCode.CANCELLED, outcome
    calls.wait_until_let_go(tag)
    assert not other.done()
    eventually(lambda: others.stats().in_flight == 1)
    other.cancel()
    others.close()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_close_with_grace_lets_calls_end(calls: CallServer, way: Way) -> None:
    """It returns when the last of its own has ended."""
    handle = grpcpool.shared_channel(calls.target)
    # The first call connects.
    assert _call(handle) == b"0"
    ended = background(lambda: outcome_of(lambda: way.finish(way.begin(handle, "work:300"))))
    eventually(lambda: handle.stats().in_flight == 1)
    handle.close(20)
    assert ended.result(0.5)[0] == "answer"


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_closed_handle_refuses(calls: CallServer, way: Way) -> None:
    """As a closed channel does; other handles on the pool work."""
    with grpcpool.shared_channel(calls.target) as other:
        with grpcpool.shared_channel(calls.target) as handle:
            assert _call(handle) == b"0"
        assert handle.closed
        kind, text = outcome_of(lambda: way.finish(way.begin(handle)))
        assert kind is ValueError
        assert "closed channel" in text or "Channel closed" in text
        for refused in (handle.acquire, handle.open):
            with pytest.raises(PoolClosedError, match="this handle is closed"):
                refused()
        handle.close()
        assert way.finish(way.begin(other)) is not None


def test_close_refuses_those_that_wait(silent: str) -> None:
    """For a place, or for connections: the callers of this handle, and no others."""
    config = PoolConfig(max_size=1, max_streams=1, connect_timeout=20.0)
    mine, others = (grpcpool.shared_channel(silent, config=config) for _ in range(2))
    waiting = [background(partial(outcome_of, ask)) for ask in (mine.acquire, mine.open)]
    call = background(lambda: outcome_of(lambda: mine.unary_unary(UU)(b"", timeout=20, wait_for_ready=True)))
    future = background(lambda: mine.unary_unary(UU).future(b"", timeout=20, wait_for_ready=True)).result(20)
    other = background(lambda: outcome_of(lambda: others.acquire(timeout=20)))
    eventually(lambda: mine.stats().waiting >= 4)
    mine.close()
    for each in waiting:
        assert each.result(5)[0] is PoolClosedError
    assert call.result(5)[:2] == ("error", grpc.StatusCode.CANCELLED)
    assert (future.code(), future.details(), future.cancelled()) == (*_CLOSED, False)
    assert not other.done()
    others.close()
    assert other.result(5)[0] is PoolClosedError


@pytest.mark.parametrize("streams", [None, 2])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_close_ends_its_own_leases(calls: CallServer, way: Way, streams: int | None) -> None:
    """With the calls on them; a lease of another handle stays."""
    mine, others = grpcpool.shared_channel(calls.target), grpcpool.shared_channel(calls.target)
    lease, other = mine.acquire(streams=streams), others.acquire(streams=streams)
    tag = new_tag()
    held = background(lambda: outcome_of(lambda: way.finish(way.begin(lease, f"hold:{tag}"))))
    calls.wait_until_held(tag)
    mine.close()
    outcome = held.result(20)
    assert outcome[1] is grpc.StatusCode.CANCELLED, outcome
    assert outcome_of(lambda: way.finish(way.begin(lease)))[0] in (ValueError, grpcpool.LeaseReleasedError)
    assert _call(other) == b"0"
    other.release()
    others.close()


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_call_that_gets_no_place_before_the_close(calls: CallServer, way: Way) -> None:
    """It leaves the queue."""
    config = PoolConfig(max_size=1, max_streams=1)
    mine, others = (grpcpool.shared_channel(calls.target, config=config) for _ in range(2))
    with others.acquire():
        call = way.begin(mine)
        assert others.stats().waiting == 1
        mine.close()
        outcome = outcome_of(lambda: way.finish(call))
        assert outcome[1] is grpc.StatusCode.CANCELLED, outcome
        assert others.stats().waiting == 0
    others.close()


def test_close_refuses_only_those_that_still_wait(calls: CallServer) -> None:
    """The refusal of one waiter may give the next a place, which is released once."""
    config = PoolConfig(max_size=1)
    mine, others = (grpcpool.shared_channel(calls.target, config=config) for _ in range(2))
    with others.acquire(streams=1):
        waiting = [background(mine.acquire)]
        eventually(lambda: others.stats().waiting == 1)
        # It waits for nothing but the first, for which the connection is reserved.
        waiting.append(background(lambda: mine.acquire(streams=1)))
        eventually(lambda: others.stats().waiting == 2)
        mine.close(0)
        for each in waiting:
            with pytest.raises(PoolClosedError):
                each.result(20)
        assert (others.stats().in_flight, others.stats().waiting) == (1, 0)
    assert others.stats().in_flight == 0
    assert _call(others) == b"0"
    others.close()


def test_close_cancels_no_call_of_another_channel(calls: CallServer) -> None:
    """A thread whose call was refused may have begun another one by then, elsewhere."""
    config = PoolConfig(max_size=1, max_streams=1)
    mine, others = (grpcpool.shared_channel(calls.target, config=config) for _ in range(2))
    tag = new_tag()
    elsewhere = calls.channel()

    def goes_elsewhere() -> Any:
        with pytest.raises((ValueError, grpc.RpcError)):
            _call(mine)
        method: Any = elsewhere.unary_unary(UU)
        return outcome_of(lambda: method(f"hold:{tag}".encode(), timeout=20))

    with others.acquire():
        outcome = background(goes_elsewhere)
        eventually(lambda: others.stats().waiting == 1)
        late = mine.unary_unary(UU).future(b"ok", timeout=20)
        began = threading.Event()

        def wait(_: object) -> None:
            calls.wait_until_held(tag)
            began.set()

        # Between the refusal of the first call and the end of `close`.
        late.add_done_callback(wait)
        mine.close(0)
        assert began.wait(20)
    elsewhere.close()
    assert outcome.result(20)[1] is grpc.StatusCode.CANCELLED
    others.close()


@pytest.mark.parametrize("waits", [True, False])
def test_close_ends_generators(calls: CallServer, monkeypatch: pytest.MonkeyPatch, *, waits: bool) -> None:
    """As tracers return them for streams. They have no methods of calls; `close` waits for them, and ends them."""

    class Generators(grpc.UnaryStreamClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
        def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return (response for response in continuation(client_call_details, request))

    plain = grpc.insecure_channel
    monkeypatch.setattr(
        grpc, "insecure_channel", lambda *args, **kwargs: grpc.intercept_channel(plain(*args, **kwargs), Generators())
    )
    mine, others = grpcpool.shared_channel(calls.target), grpcpool.shared_channel(calls.target)
    if not waits:
        others.open()
    method: Any = mine.unary_stream(US)
    ended = method(b"ok", timeout=20)
    assert list(ended) == [b"0", b"1", b"2"]
    tag = new_tag()
    stream = method(f"hold:{tag}".encode(), timeout=20)
    assert next(stream) == b"0"
    began = time.monotonic()
    mine.close(0.2)
    assert time.monotonic() - began > 0.1
    calls.wait_until_let_go(tag)
    assert list(stream) == []
    assert _call(others) == b"0"
    others.close()


def test_many_threads_close_amid_everything(calls: CallServer) -> None:
    """Nothing is lost: afterwards nothing is in flight, and the pool ends."""
    keeper = grpcpool.shared_channel(calls.target)
    stop = threading.Event()
    unexpected: list[object] = []

    def client() -> None:
        while not stop.is_set():
            with grpcpool.shared_channel(calls.target) as handle:
                method: Any = handle.unary_unary(UU)
                closer = threading.Timer(0.003, handle.close)
                closer.start()
                for _ in range(20):
                    outcome = outcome_of(partial(method, b"work:1", timeout=20))
                    if outcome[0] is ValueError:
                        break
                    if outcome[0] != "answer" and outcome[1] is not grpc.StatusCode.CANCELLED:
                        unexpected.append(outcome)
                closer.join()

    threads = [threading.Thread(target=client) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert _call(keeper) == b"0"
    eventually(lambda: keeper.stats().acquired > 200, timeout=20)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert unexpected == []
    stats = keeper.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)
    keeper.close()


# --- copies ------------------------------------------------------------------------------------------------------


def _stub(channel: Any) -> Any:
    return channel.unary_unary(UU)


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda it: pickle.loads(pickle.dumps(it)),
        lambda it: pickle.loads(cloudpickle.dumps(it)),
    ],
    ids=["copy", "deepcopy", "pickle", "cloudpickle"],
)
def test_copies_are_handles_on_one_pool(calls: CallServer, copied: Any) -> None:
    """Of a pool, of a handle, of a stub over them; they live on when the original is closed."""
    with grpcpool.insecure_channel(calls.target) as pool, grpcpool.shared_channel(calls.target) as handle:
        channels = [copied(pool), copied(handle), copied(copied(pool))]
        stubs = [copied(_stub(pool)), copied(_stub(handle)), *map(_stub, channels)] if copied is not copy.copy else []
    for channel in channels:
        assert _call(channel) == b"0"
    for stub in stubs:
        assert stub(b"ok", timeout=20) == b"0"
    assert {channel.stats().acquired for channel in channels} == {len(channels) + len(stubs)}
    assert connections_to(calls.port) == 1
    assert pickle.loads(cloudpickle.dumps(lambda: _call(channels[0])))() == b"0"
    for channel in channels:
        channel.close()


def test_a_fork_shares_nothing(calls: CallServer) -> None:
    """The child's pools are its own; a handle from before works there, and closes without touching the parent's."""
    program = """
import gc, os, sys, weakref
import grpcpool
from support.call_server import UU
target = sys.argv[1]
call = lambda channel: channel.unary_unary(UU)(b"ok", timeout=20)
handle = grpcpool.shared_channel(target)
other = grpcpool.shared_channel(target)
assert call(handle) == b"0"
closed = grpcpool.shared_channel(target, name="lingers")
assert call(closed) == b"0"
lingers = weakref.ref(closed._pool)
closed.close()
del closed
child = os.fork()
if not child:
    try:
        gc.collect()
        assert lingers() is not None, "gRPC's channels must not be dropped here"
        with grpcpool.shared_channel(target) as new:
            assert new.stats().acquired == handle.stats().acquired == 0
            assert call(new) == b"0" == call(handle)
            assert new.stats().acquired == 1
        handle.close()
        other.close()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert call(handle) == b"0" and handle.stats().opened == 1
"""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    run_python(program, calls.target, options=())


def test_what_lingers_does_not_hold_up_the_end(calls: CallServer) -> None:
    """A process ends at once, with handles closed, dropped, or in use."""
    program = """
import sys, time
import grpcpool
from grpcpool._sync import shared
from support.call_server import UU
shared.LINGERS_FOR = 600
one, other, third = handles = [grpcpool.shared_channel(sys.argv[1], name=name) for name in "abc"]
for each in handles:
    each.unary_unary(UU)(b"ok", timeout=20)
one.close()
del third, handles, each
print(time.monotonic())
"""
    ended = run_python(program, calls.target)
    assert ended.stderr == ""
    assert time.monotonic() - float(ended.stdout) < 20


def test_the_time_that_pools_linger_is_documented() -> None:
    """As `shared_channel` says."""
    assert sharing.LINGERS_FOR == 2.0
    for world in (grpcpool, grpcpool.aio):
        assert "two seconds" in " ".join(str(world.shared_channel.__doc__).split())


def test_close_keeps_no_frames(calls: CallServer) -> None:
    """What its callers hold is free when they return, without a collection, also if calls of others were blocked."""

    class Big:
        pass

    def request() -> weakref.ref[Big]:
        big = Big()
        handle = grpcpool.shared_channel(calls.target)
        tag = new_tag()
        held = background(lambda: outcome_of(lambda: _call(handle, f"hold:{tag}".encode())))
        calls.wait_until_held(tag)
        handle.close()
        assert held.result(20)[1] is grpc.StatusCode.CANCELLED
        return weakref.ref(big)

    gc.disable()
    try:
        assert [request()() for _ in range(3)] == [None] * 3
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_close_before_the_first_channel(calls: CallServer) -> None:
    """It says nothing of gRPC, and later closes cancel blocking calls."""
    program = """
import sys, threading, grpc, grpcpool
from support.call_server import UU
from support.waiting import background, eventually
from support.ways import outcome_of
grpcpool.shared_channel(sys.argv[1]).close()
handle = grpcpool.shared_channel(sys.argv[1])
held = background(lambda: outcome_of(lambda: handle.unary_unary(UU)(b"hold:first", timeout=20)))
eventually(lambda: handle.stats().in_flight == 1)
handle.close()
print(held.result(5)[1].name)
"""
    done = run_python(program, calls.target)
    assert (done.stdout.strip(), done.stderr) == ("CANCELLED", "")
