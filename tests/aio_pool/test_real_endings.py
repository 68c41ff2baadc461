"""Programs that end with a pool, closed or not, in whatever state, end normally and print nothing."""

from __future__ import annotations

import pytest

from aio_pool.programs import run_program
from support.servers import Server

pytestmark = pytest.mark.timeout(90)


def test_a_closed_pool(server: Server) -> None:
    """A closed pool does not disturb the end of the program."""
    run_program(
        server,
        """
        async def main():
            async with aio.ChannelPool(factory, PoolConfig(min_size=2)) as pool:
                await pool.open()
                await use(pool)

        asyncio.run(main())
        print("fine")
        """,
    )


@pytest.mark.parametrize("pool", ["global", "local"])
def test_a_pool_never_closed(server: Server, pool: str) -> None:
    """Its tasks end with the loop; no task is destroyed while pending, and nothing is printed."""
    run_program(
        server,
        f"""
        async def main():
            if {pool == "global"}:
                global pool
            pool = aio.ChannelPool(factory, PoolConfig(min_size=2, max_size=3))
            await pool.open()
            await use(pool)

        asyncio.run(main())
        gc.collect()
        print("fine")
        """,
    )


@pytest.mark.parametrize("end", ["loop.close()", "pass"], ids=["closed", "dropped"])
def test_a_loop_that_stops_as_the_pool_is_dropped(server: Server, end: str) -> None:
    """The connections close without it, as those of a channel do, and nothing is printed."""
    run_program(
        server,
        f"""
        import warnings
        from support.waiting import eventually

        async def main():
            pool = aio.ChannelPool(factory, PoolConfig(min_size=2))
            await pool.open()
            await use(pool)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        {end}
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        gc.collect()
        eventually(lambda: connections_to(port) == 0)
        print("fine")
        """,
    )


def test_a_pool_never_closed_while_it_connects(server: Server) -> None:
    """The same when connections are being opened, primed and closed, and a request waits."""
    run_program(
        server,
        """
        # Hides the warnings that port 1 is unreachable.
        logging.getLogger("grpcpool").setLevel(logging.ERROR)

        async def prime(channel):
            await asyncio.sleep(100)

        async def main():
            global pools
            pools = [
                aio.ChannelPool(factory, PoolConfig(min_size=2, prime=prime)),
                aio.insecure_channel("127.0.0.1:1"),
                aio.ChannelPool(factory, PoolConfig(max_size=1)),
            ]
            waiting = [asyncio.create_task(pool.acquire()) for pool in pools]
            call = pools[1].unary_unary(ECHO)(b"a", wait_for_ready=True)
            (await waiting[2]).discard()
            waiting.append(asyncio.create_task(pools[2].close(grace=100)))
            await asyncio.sleep(0.1)

        asyncio.run(main())
        print("fine")
        """,
    )


def test_a_pool_with_calls_never_awaited(server: Server) -> None:
    """A unary call and a stream that run when the loop ends are cancelled with it."""
    run_program(
        server,
        """
        async def main():
            global pool, calls
            pool = aio.ChannelPool(factory)
            await pool.open()
            stream = pool.unary_stream("/test.Test/Count")(b"1000,10", timeout=30)
            assert await stream.read() == b"0"
            calls = [stream, pool.unary_unary(SLOW)(b"5000", timeout=30)]
            await asyncio.sleep(0.05)

        asyncio.run(main())
        print("fine")
        """,
    )


def test_several_loops_one_after_the_other(server: Server) -> None:
    """A program may call `asyncio.run` again and again, each time with a pool of its own, closed or not."""
    run_program(
        server,
        """
        async def main(close):
            pool = aio.ChannelPool(factory, PoolConfig(min_size=2))
            await use(pool)
            if close:
                await pool.close()

        for close in (True, False, True, False, True):
            asyncio.run(main(close))
            gc.collect()
        print("fine")
        """,
    )


def test_a_lease_that_outlives_the_loop_only_warns(server: Server) -> None:
    """Released after the end of its loop it does nothing; one never released causes one warning."""
    run_program(
        server,
        """
        async def main():
            pool = aio.ChannelPool(factory, PoolConfig(max_size=2))
            return pool, await pool.acquire(), await pool.acquire()

        pool, one, two = asyncio.run(main())
        one.release()
        two.discard()
        assert pool.stats().in_flight == 0
        repr(one), repr(pool)
        del one, two, pool
        gc.collect()
        print("fine")
        """,
    )


def test_an_exception_ends_the_program_as_always(server: Server) -> None:
    """What ``main`` raises comes out of ``asyncio.run``; the pool, in its block, is closed."""
    run_program(
        server,
        """
        async def main():
            async with aio.ChannelPool(factory) as pool, pool.acquire():
                raise KeyError

        try:
            asyncio.run(main())
        except KeyError:
            print("fine")
        """,
    )


def test_a_pool_in_a_thread_of_its_own(server: Server) -> None:
    """A loop on a thread works too, and may be closed from the main thread."""
    run_program(
        server,
        """
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        pool = aio.ChannelPool(factory)
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(use(pool), loop).result(30)
        pool.refresh()
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result(30)
        assert not asyncio.all_tasks(loop), asyncio.all_tasks(loop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
        print("fine")
        """,
    )
