"""Asyncio pools in forked children. Each test is a program of its own: a fork takes the whole process along.

Once asyncio gRPC has been used in a process, it does not work in its children, whatever anybody does. So a pool that
was used says so in the child, promptly, without asking gRPC; and one that was not, in a process that did not use
asyncio gRPC at all, works there.
"""

from __future__ import annotations

import os

import pytest

from aio_pool.programs import run_program
from grpcpool._grpc.release import GRPC_RELEASE
from support.servers import Server

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]

_CHECK = """
def check_void(pool, lease=None, stubs=(), calls=()):
    '''Every use of the pool, and of a lease of it, raises; what only looks does not.'''
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

    # gRPC would hang for ever, or kill the process.
    asyncio.run(asyncio.wait_for(check(), 20))
    repr(pool), pool.name, pool.config, pool.closed
    if lease is not None:
        repr(lease), lease.created_at, lease.used_at
        lease.release()
        lease.discard()
        asyncio.run(lease.close())


"""


def test_a_pool_that_was_not_used_works_in_the_child(server: Server) -> None:
    """Made before the fork, with stubs made of it and bounds changed, it is used in children and then in the parent."""
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


def test_children_of_an_idle_pool_live(server: Server) -> None:
    """A child that has nothing to do with the pool is in no danger, as with gRPC's own channels that are idle."""
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


def test_a_pool_that_was_used_says_so_in_the_child(server: Server) -> None:
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
            assert fork(lambda: check_void(pool, lease, stubs)) == 0
            await use(pool)
            assert await stubs[1](b"a", timeout=20) == b"a"
        lease.release()
        assert pool.stats().in_flight == 0
        assert connections_to(port) == 2

asyncio.run(main())
print("fine")
""",
    )


@pytest.mark.parametrize("state", ["closed", "of a loop that has gone", "opening", "waited for"])
def test_whatever_state_a_used_pool_is_in(server: Server, state: str) -> None:
    """Closed, forgotten, still connecting, or with waiters and calls in flight: the child is told the same."""
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
    # What is in flight, or being connected, is gRPC's affair.
    assert fork(lambda: check_void(pool, lease), tries=20) == 0
    if state == "waited for":
        assert await call == b"2000"
        lease.release()
        (await waiting).release()
        assert await queued == b"b"
        await pool.close()

pool = aio.ChannelPool(factory, PoolConfig(max_size=1, prime=prime), name="orders")
asyncio.run(main(pool))
if state == "of a loop that has gone":
    assert fork(lambda: check_void(pool)) == 0
print("fine")
""",
    )


def test_a_lock_that_a_thread_held_is_no_obstacle(server: Server) -> None:
    """Forked while threads look at and change the pool, the child is told, and does not hang."""
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
            assert await asyncio.to_thread(fork, lambda: check_void(pool)) == 0
        over.set()
        for thread in threads:
            thread.join()
        await use(pool)

asyncio.run(main())
print("fine")
""",
    )


def test_what_is_collected_in_the_child_touches_nothing(server: Server) -> None:
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
def test_the_sync_twin_works_in_the_child(server: Server) -> None:
    """A child whose asyncio pool is void may use a pool of the other world, made before or after."""
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
