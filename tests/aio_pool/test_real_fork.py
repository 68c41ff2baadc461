"""Asyncio pools in forked children. Each test is a program of its own, because a fork copies the whole process.

Once a process has used asyncio gRPC, it does not work in its children. A pool that was used therefore raises in the
child, promptly and without calling gRPC. A pool that was not used, in a process that has not used asyncio gRPC, works
in the child.
"""

from __future__ import annotations

import os

import pytest

from aio_pool.programs import run_program
from grpcpool._grpc.version import GRPC_RELEASE
from support.servers import Server

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform"),
]

_CHECK = """
def check_unusable(pool, lease=None, stubs=(), calls=()):
    '''Every use of the pool, and of its lease, raises; only looking at it does not.'''
    state = grpc.ChannelConnectivity.READY
    uses = {
        "acquire": lambda: pool.acquire(),
        "acquire with no time": lambda: pool.acquire(timeout=0, streams=1),
        "acquire block": lambda: pool.acquire().__aenter__(),
        "open": lambda: pool.open(),
        "close": lambda: pool.close(),
        "block": lambda: pool.__aexit__(None, None, None),
        "resize": lambda: pool.resize(max_size=20),
        "refresh": lambda: pool.refresh(),
        "stats": lambda: pool.stats(),
        "get_state": lambda: pool.get_state(),
        "get_state to connect": lambda: pool.get_state(try_to_connect=True),
        "wait_for_state_change": lambda: pool.wait_for_state_change(state),
        "channel_ready": lambda: pool.channel_ready(),
        "unary_unary": lambda: pool.unary_unary(ECHO)(b""),
        "unary_stream": lambda: pool.unary_stream(ECHO)(b""),
        "stream_unary": lambda: pool.stream_unary(ECHO)(),
        "stream_stream": lambda: pool.stream_stream(ECHO)(),
    }
    if lease is not None:
        uses |= {
            "lease unary_unary": lambda: lease.unary_unary(ECHO)(b""),
            "lease unary_stream": lambda: lease.unary_stream(ECHO)(b""),
            "lease stream_unary": lambda: lease.stream_unary(ECHO)(),
            "lease stream_stream": lambda: lease.stream_stream(ECHO)(),
            "lease get_state": lambda: lease.get_state(),
            "lease wait_for_state_change": lambda: lease.wait_for_state_change(state),
            "lease channel_ready": lambda: lease.channel_ready(),
        }
    uses |= {f"stub {number}": lambda stub=stub: stub(b"") for number, stub in enumerate(stubs)}

    async def check():
        for name, use in uses.items():
            try:
                done = use()
                if hasattr(done, "__await__"):
                    await done
            except PoolForkedError as error:
                assert "'orders'" in str(error), (name, error)
                assert "spawn" in str(error), (name, error)
                assert "connections open" in str(error), (name, error)
            else:
                raise AssertionError(f"{name} worked in the child")

    # gRPC would hang, or kill the process.
    asyncio.run(asyncio.wait_for(check(), 20))
    repr(pool), pool.name, pool.config, pool.closed
    if lease is not None:
        repr(lease), lease.created_at, lease.used_at
        lease.release()
        lease.discard()
        asyncio.run(lease.close())


"""


def test_an_unused_pool_works_in_the_child(server: Server) -> None:
    """A pool created, but not used, before the fork, with stubs and new bounds, works in children and in the parent."""
    run_program(
        server,
        """
        pool = aio.ChannelPool(factory, PoolConfig(min_size=1), name="orders")
        echo = pool.unary_unary(ECHO)
        over_target = aio.insecure_channel(target)
        pool.resize(min_size=2)

        def child():
            async def main():
                assert await echo(b"a", timeout=20) == b"a"
                await use(over_target)
                async with pool:
                    await pool.open()
                    assert pool.stats().ready == 2
                    await use(pool)
                await over_target.close()

            asyncio.run(main())
            gc.collect()
            deadline = time.monotonic() + 5
            while connections_to(port):
                assert time.monotonic() < deadline

        for _ in range(2):
            assert fork(child) == 0
        child()
        print("fine")
        """,
    )


def test_a_child_that_ignores_an_idle_pool_runs(server: Server) -> None:
    """A child that does not use the pool runs normally, as with gRPC's own idle channels."""
    run_program(
        server,
        """
        async def main():
            async with aio.ChannelPool(factory, PoolConfig(min_size=2)) as pool:
                await pool.open()
                await use(pool)
                codes = {fork(lambda: time.sleep(0.01)) for _ in range(40)}
                assert codes == {0}, codes
                await use(pool)

        asyncio.run(main())
        print("fine")
        """,
    )


def test_a_used_pool_raises_in_the_child(server: Server) -> None:
    """Everything raises `PoolForkedError`, leases and stubs too; the parent goes on as before, again and again."""
    run_program(
        server,
        _CHECK
        + """
async def main():
    async with aio.ChannelPool(factory, PoolConfig(min_size=2), name="orders") as pool:
        lease = await pool.acquire()
        stubs = [pool.unary_unary(ECHO), lease.unary_unary(ECHO), pool.stream_unary(ECHO), lease.unary_stream(ECHO)]
        assert await stubs[0](b"a") == await stubs[1](b"a") == b"a"
        for _ in range(3):
            assert fork(lambda: check_unusable(pool, lease, stubs)) == 0
            await use(pool)
            assert await stubs[1](b"a", timeout=20) == b"a"
        lease.release()
        assert pool.stats().in_flight == 0
        assert connections_to(port) == 2

asyncio.run(main())
print("fine")
""",
    )


@pytest.mark.parametrize("state", ["closed", "of a closed loop", "opening", "waited for"])
def test_a_used_pool_in_any_state_raises_in_the_child(server: Server, state: str) -> None:
    """Closed, dropped, still connecting, or with waiters and calls in flight: the child gets the same error."""
    run_program(
        server,
        _CHECK
        + f"""
state = {state!r}

async def prime(channel):
    await asyncio.sleep(100 if state == "opening" else 0)

async def main(pool):
    if state == "opening":
        opening = asyncio.create_task(pool.open())
        await asyncio.sleep(0.2)
    else:
        await use(pool)
    lease = None
    if state == "closed":
        await pool.close()
    if state == "waited for":
        lease = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        call = lease.unary_unary(SLOW)(b"2000", timeout=20)
        queued = pool.unary_unary(ECHO)(b"b", timeout=20)
        await asyncio.sleep(0.2)
    # With calls in flight or connections being opened, gRPC itself may kill such a child.
    assert fork(lambda: check_unusable(pool, lease), tries=20) == 0
    if state == "waited for":
        assert await call == b"2000"
        lease.release()
        (await waiting).release()
        assert await queued == b"b"
        await pool.close()

pool = aio.ChannelPool(factory, PoolConfig(max_size=1, prime=prime), name="orders")
asyncio.run(main(pool))
if state == "of a closed loop":
    assert fork(lambda: check_unusable(pool)) == 0
print("fine")
""",
    )


def test_a_lock_held_by_a_thread_does_not_block_the_child(server: Server) -> None:
    """Forked while threads look at and change the pool, the child gets its error and does not hang."""
    run_program(
        server,
        _CHECK
        + """
async def main():
    async with aio.ChannelPool(factory, PoolConfig(min_size=1), name="orders") as pool:
        await pool.open()
        over = threading.Event()

        def look():
            while not over.is_set():
                pool.stats(), repr(pool)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert await asyncio.to_thread(fork, lambda: check_unusable(pool)) == 0
        over.set()
        for thread in threads:
            thread.join()
        await use(pool)

asyncio.run(main())
print("fine")
""",
    )


def test_collecting_in_the_child_leaves_the_parent_alone(server: Server) -> None:
    """Leases, calls and pools that the child drops are silent there, and stay the parent's."""
    run_program(
        server,
        """
        async def main():
            held = [aio.ChannelPool(factory, name="orders")]
            held.append(await held[0].acquire())
            held.append(held[0].unary_unary(SLOW)(b"1000", timeout=20))
            await asyncio.sleep(0.1)

            def child():
                held.clear()
                gc.collect()

            # A call is in flight: gRPC itself may kill such a child.
            assert fork(child, tries=20) == 0
            pool, lease, call = held
            assert await call == b"1000"
            lease.release()
            await pool.close()

        asyncio.run(main())
        print("fine")
        """,
    )


@pytest.mark.skipif(GRPC_RELEASE < (1, 80), reason="before 1.80 gRPC itself may hang in a forked child")
def test_a_sync_pool_works_in_the_child(server: Server) -> None:
    """A child whose asyncio pool cannot be used may use a sync pool, created before or after the fork."""
    run_program(
        server,
        """
        def sync_factory():
            return grpc.insecure_channel(target, grpcpool.isolated())

        before = grpcpool.ChannelPool(sync_factory)

        async def main():
            async with aio.ChannelPool(factory, name="orders") as pool:
                await use(pool)

                def child():
                    for sync in (before, grpcpool.ChannelPool(sync_factory)):
                        with sync.acquire(timeout=20) as lease:
                            assert lease.unary_unary(ECHO)(b"a", timeout=20) == b"a"
                        sync.close()

                assert fork(child) == 0
                await use(pool)

        asyncio.run(main())
        print("fine")
        """,
    )
