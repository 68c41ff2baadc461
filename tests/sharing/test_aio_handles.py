"""Handles on a shared pool, for asyncio."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from functools import partial
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import grpc
import pytest

import grpcpool
from grpcpool import PoolClosedError, PoolConfig, WrongEventLoopError
from grpcpool._aio import shared
from sharing import parts
from support.aio_ways import WAYS, Way
from support.call_server import UU, CallServer, new_tag
from support.connections import connections_to
from support.loops import in_loop, not_of_poller, run, until
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)

# One way for each kind of method.
_KINDS = list({way.maker: way for way in WAYS}.values())


async def _call(channel: Any, command: bytes = b"ok") -> Any:
    return await channel.unary_unary(UU)(command, timeout=20)


def _shared(handle: Any) -> Any:
    return handle._shared


@in_loop
async def test_equal_arguments_share_a_pool(calls: CallServer) -> None:
    """Each handle is a whole channel, and offers everything that the pool does."""
    one, other = (grpcpool.aio.shared_channel(calls.target) for _ in range(2))
    assert isinstance(one, grpcpool.aio.ChannelPool)
    for channel in (one, other):
        assert await _call(channel) == b"0"
    assert one.stats() == other.stats()
    assert (one.stats().acquired, connections_to(calls.port)) == (2, 1)
    assert (one.name, one.target, one.config) == (calls.target, calls.target, PoolConfig())
    await one.open()
    async with other.acquire(streams=2) as lease:
        assert await _call(lease) == b"0"
    assert one.get_state() is grpc.ChannelConnectivity.READY
    await one.close()
    await other.close()


def test_a_pool_for_each_loop(calls: CallServer) -> None:
    """A loop that has ended leaves nothing, and a later one begins with a new pool, whatever its address in memory."""

    async def once() -> int:
        async with grpcpool.aio.shared_channel(calls.target) as handle:
            assert await _call(handle) == b"0"
            return handle.stats().acquired

    assert [run(once()) for _ in range(3)] == [1, 1, 1]
    eventually(lambda: connections_to(calls.port) == 0)


@pytest.mark.parametrize("create", [grpcpool.aio.shared_channel, grpcpool.aio.insecure_channel], ids=["handle", "pool"])
@pytest.mark.parametrize("way", _KINDS, ids=str)
def test_a_call_that_outlives_its_loop(calls: CallServer, way: Way, create: Any) -> None:
    """It is cancelled when it is dropped, as gRPC's own, and its connection is closed."""
    tag = new_tag()
    kept = []

    async def main() -> None:
        channel = create(calls.target)
        call = way.begin(channel, f"hold:{tag}")
        await way.send(call, f"hold:{tag}")
        await until(lambda: channel.stats().in_flight == 1)
        await asyncio.to_thread(calls.wait_until_held, tag)
        kept.append(call)

    asyncio.run(main())
    kept.clear()
    gc.collect()
    calls.wait_until_let_go(tag)


def test_a_loop_that_ends_as_its_pool_does(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is first: no task is left, and no error shows."""
    lingers_for = 0.02
    monkeypatch.setattr(shared, "LINGERS_FOR", lingers_for)

    async def main(end: float) -> None:
        async with grpcpool.aio.shared_channel(calls.target) as handle:
            assert await _call(handle) == b"0"
        await asyncio.sleep(end)

    uncaught: list[Any] = []
    for number in range(40):
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(lambda _, context: uncaught.append(context))
            runner.run(main(lingers_for * (0.9 + number / 100)))
    gc.collect()
    assert not_of_poller(str(context) for context in uncaught) == []


@in_loop
async def test_a_pool_lingers_from_its_last_release(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles that came and went before do not shorten that."""
    first = grpcpool.aio.shared_channel(calls.target)
    assert await _call(first) == b"0"
    pool = _shared(first).pool
    await first.close()
    monkeypatch.setattr(shared, "LINGERS_FOR", 600.0)
    second = grpcpool.aio.shared_channel(calls.target)
    assert _shared(second).pool is pool
    await second.close()
    # The moment of the first has passed then.
    await asyncio.sleep(0.2)
    assert not pool.closed
    await pool.close()


@in_loop
async def test_the_last_close_closes_the_pool(calls: CallServer) -> None:
    """Some seconds later: a handle that comes meanwhile finds the connection."""
    handle = grpcpool.aio.shared_channel(calls.target)
    assert await _call(handle) == b"0"
    await handle.close()
    async with grpcpool.aio.shared_channel(calls.target) as late:
        assert _shared(late) is _shared(handle)
        assert await _call(late) == b"0"
        assert late.stats().opened == 1
    await until(lambda: _shared(handle).pool.closed)
    await until(lambda: connections_to(calls.port) == 0)
    async with grpcpool.aio.shared_channel(calls.target) as later:
        assert await _call(later) == b"0"
        assert later.stats().acquired == 1


@in_loop
async def test_a_handle_that_is_dropped_counts_no_longer(calls: CallServer) -> None:
    """As with gRPC's channels, nothing needs to be closed."""
    handle = grpcpool.aio.shared_channel(calls.target)
    assert await _call(handle) == b"0"
    del handle
    gc.collect()
    await until(lambda: connections_to(calls.port) == 0)


@pytest.mark.parametrize("way", _KINDS, ids=lambda way: way.maker)
@in_loop
async def test_close_cancels_its_own_calls(calls: CallServer, way: Way) -> None:
    """Of whatever kind; those of others go on."""
    mine, others = (grpcpool.aio.shared_channel(calls.target) for _ in range(2))
    tag, other_tag = new_tag(), new_tag()
    call = way.begin(mine, f"hold:{tag}")
    await way.send(call, f"hold:{tag}")
    other = others.unary_unary(UU)(f"hold:{other_tag}".encode(), timeout=20)
    await asyncio.to_thread(calls.wait_until_held, tag)
    await asyncio.to_thread(calls.wait_until_held, other_tag)
    await mine.close()
    assert call.done()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.to_thread(calls.wait_until_let_go, tag)
    assert not other.done()
    assert others.stats().in_flight == 1
    other.cancel()
    await others.close()


@pytest.mark.parametrize("way", _KINDS, ids=lambda way: way.maker)
@in_loop
async def test_close_with_grace_lets_calls_end(calls: CallServer, way: Way) -> None:
    """It returns when the last of its own has ended."""
    handle = grpcpool.aio.shared_channel(calls.target)
    using = asyncio.ensure_future(way.use(way.begin(handle, "work:200"), "work:200"))
    await until(lambda: handle.stats().in_flight == 1)
    await handle.close(20)
    assert await using is not None


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_closed_handle_refuses(calls: CallServer, way: Way) -> None:
    """As a closed channel does; other handles on the pool work."""
    async with grpcpool.aio.shared_channel(calls.target) as other:
        async with grpcpool.aio.shared_channel(calls.target) as handle:
            assert await _call(handle) == b"0"
        assert handle.closed
        with pytest.raises(grpc.aio.UsageError, match="Channel is closed"):
            way.begin(handle)
        with pytest.raises(PoolClosedError, match="this handle is closed"):
            await handle.acquire()
        with pytest.raises(PoolClosedError, match="this handle is closed"):
            await handle.open()
        await handle.close()
        assert await _call(other) == b"0"


@in_loop
async def test_close_refuses_those_that_wait(silent: str) -> None:
    """For a place, or for connections: the callers of this handle, and no others."""
    config = PoolConfig(max_size=1, max_streams=1, connect_timeout=20.0)
    mine, others = (grpcpool.aio.shared_channel(silent, config=config) for _ in range(2))
    waiting = [asyncio.ensure_future(each) for each in (mine.acquire(), mine.open())]
    call = mine.unary_unary(UU)(b"", timeout=20, wait_for_ready=True)
    other = asyncio.ensure_future(others.acquire(timeout=20))
    await until(lambda: mine.stats().waiting >= 3)
    await mine.close()
    for each in waiting:
        with pytest.raises(PoolClosedError, match="this handle is closed"):
            await each
    assert call.cancelled()
    assert not other.done()
    await others.close()
    with pytest.raises(PoolClosedError):
        await other


@pytest.mark.parametrize("streams", [None, 2])
@in_loop
async def test_close_ends_its_own_leases(calls: CallServer, streams: int | None) -> None:
    """With the calls on them; a lease of another handle stays."""
    mine, others = (grpcpool.aio.shared_channel(calls.target) for _ in range(2))
    lease, other = await mine.acquire(streams=streams), await others.acquire(streams=streams)
    tag = new_tag()
    call: Any = lease.unary_unary(UU)(f"hold:{tag}".encode(), timeout=20)
    await asyncio.to_thread(calls.wait_until_held, tag)
    await mine.close()
    assert call.cancelled()
    with pytest.raises((grpc.aio.UsageError, grpcpool.LeaseReleasedError)):
        await _call(lease)
    assert await _call(other) == b"0"
    other.release()
    await others.close()


@in_loop
async def test_interceptors_are_the_handles_own(calls: CallServer) -> None:
    """They are not applied to the calls of others; leases have them as well; a call within one is cancelled."""
    mine = grpcpool.aio.shared_channel(calls.target, interceptors=[parts.TOKEN])
    async with grpcpool.aio.shared_channel(calls.target) as others:
        assert _shared(mine) is _shared(others)
        assert await _call(mine, b"x") == b"echo:x"
        assert await _call(others, b"x") == b"x"
        async with mine.acquire() as lease:
            assert await _call(lease, b"x") == b"echo:x"
        for copied in (copy.copy(mine), pickle.loads(pickle.dumps(mine))):
            assert await _call(copied, b"x") == b"echo:x"
            await copied.close()
        begun: Any = mine.unary_unary(UU)(b"x", timeout=20)
        await mine.close()
        with pytest.raises(asyncio.CancelledError):
            await begun


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
@in_loop
async def test_copies_are_handles_on_one_pool(calls: CallServer, copied: Any) -> None:
    """Of a pool, of a handle, of a stub over them; they live on when the original is closed."""
    pool, handle = grpcpool.aio.insecure_channel(calls.target), grpcpool.aio.shared_channel(calls.target)
    channels = [copied(pool), copied(handle), copied(copied(pool))]
    stubs = [] if copied is copy.copy else [copied(it.unary_unary(UU)) for it in (pool, handle)]
    await pool.close()
    await handle.close()
    for channel in channels:
        assert await _call(channel) == b"0"
    for stub in stubs:
        assert await stub(b"ok", timeout=20) == b"0"
    assert {channel.stats().acquired for channel in channels} == {len(channels) + len(stubs)}
    assert connections_to(calls.port) == 1
    for channel in channels:
        await channel.close()


def test_unpickled_without_a_loop_it_is_not_bound(calls: CallServer) -> None:
    """It is bound to the loop of its first use, as a pool is."""
    sent = pickle.dumps(grpcpool.aio.insecure_channel(calls.target))
    handle = pickle.loads(sent)

    async def main() -> None:
        assert await _call(handle) == b"0"
        inside = pickle.loads(sent)
        assert inside.stats().acquired == 1
        await inside.close()
        await handle.close()

    run(main())
    bound = pickle.loads(sent)
    run(_call(bound))
    with pytest.raises(WrongEventLoopError):
        run(_call(bound))
    del bound
    eventually(lambda: (gc.collect(), connections_to(calls.port) == 0)[1])


@in_loop
async def test_close_refuses_only_those_that_still_wait(calls: CallServer) -> None:
    """The refusal of one waiter may give the next a place, which is released once."""
    config = PoolConfig(max_size=1)
    mine, others = (grpcpool.aio.shared_channel(calls.target, config=config) for _ in range(2))
    async with others.acquire(streams=1):
        # The second waits for nothing but the first, for which the connection is reserved.
        waiting = [asyncio.ensure_future(mine.acquire(streams=streams)) for streams in (None, 1)]
        await until(lambda: others.stats().waiting == 2)
        await mine.close(0)
        for each in waiting:
            with pytest.raises(PoolClosedError):
                await each
        assert (others.stats().in_flight, others.stats().waiting) == (1, 0)
    assert others.stats().in_flight == 0
    assert await _call(others) == b"0"
    await others.close()


@in_loop
async def test_a_lease_that_comes_as_its_handle_is_closed(calls: CallServer) -> None:
    """It is released at once, not kept, and not returned to its user."""
    mine, others = (grpcpool.aio.shared_channel(calls.target, config=PoolConfig(max_size=1)) for _ in range(2))
    lease = await others.acquire()
    waiting = asyncio.ensure_future(mine.acquire())
    await until(lambda: others.stats().waiting == 1)
    # The place is granted now; the task that gets it runs only after `close` has begun.
    lease.release()
    await mine.close(20)
    with pytest.raises(PoolClosedError):
        await waiting
    assert others.stats().in_flight == 0
    await others.close()


@in_loop
async def test_many_tasks_close_amid_everything(calls: CallServer) -> None:
    """Nothing is lost: afterwards nothing is in flight, and the pool ends."""
    keeper = grpcpool.aio.shared_channel(calls.target)

    async def client(number: int) -> None:
        for _ in range(5):
            handle = grpcpool.aio.shared_channel(calls.target)
            begun = [asyncio.ensure_future(_call(handle, b"work:1")) for _ in range(5)]
            await asyncio.sleep(0.001 * (number % 4))
            await handle.close()
            for outcome in await asyncio.gather(*begun, return_exceptions=True):
                ended_by_close = isinstance(outcome, asyncio.CancelledError | grpc.aio.UsageError)
                assert ended_by_close or outcome == b"work:1", outcome

    await asyncio.gather(*map(partial(client), range(40)))
    stats = keeper.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert await _call(keeper) == b"0"
    await keeper.close()


def test_a_handle_that_is_dropped_while_its_loop_ends(calls: CallServer) -> None:
    """After the loop has closed its asynchronous generators: nothing warns, and nothing is left."""
    handles = []

    async def use() -> None:
        handles.append(grpcpool.aio.shared_channel(calls.target))
        assert await _call(handles[0]) == b"0"

    async def drop() -> None:
        handles.clear()
        gc.collect()
        await asyncio.sleep(0.05)

    loop = asyncio.new_event_loop()
    for last in (use, loop.shutdown_asyncgens, drop):
        loop.run_until_complete(last())
    loop.close()
    gc.collect()
    eventually(lambda: connections_to(calls.port) == 0)
