"""Pools that are opened, used and closed repeatedly leave nothing behind.

Each test is a program of its own, so that it measures nothing else.
"""

from __future__ import annotations

import textwrap

import pytest

from support.programs import run_python
from support.servers import Server

pytestmark = pytest.mark.timeout(120)

_PRELUDE = """
import asyncio, gc, sys, threading
import grpc
import psutil
import grpcpool
from support.connections import connections_to
from support.servers import ECHO, unary
from support.waiting import eventually

target = sys.argv[1]
port = int(target.rpartition(":")[2])
this = psutil.Process()
config = grpcpool.PoolConfig(min_size=3)
WARM_UP, CYCLES, MEGABYTE = 20, 120, 1 << 20


class Costs:
    '''What the process uses, compared with its use after the warm-up.'''

    def __init__(self):
        gc.collect()
        eventually(lambda: connections_to(port) == 0)
        self.descriptors, self.threads, self.memory = this.num_fds(), this.num_threads(), this.memory_info().rss

    def compare(self):
        gc.collect()
        eventually(lambda: connections_to(port) == 0)
        # gRPC's own threads come and go.
        eventually(lambda: this.num_fds() <= self.descriptors)
        eventually(lambda: this.num_threads() <= self.threads)
        more = (this.memory_info().rss - self.memory) / MEGABYTE
        assert more < 12, f"{more:.1f} MB more"
        print("fine", this.num_fds() - self.descriptors, this.num_threads() - self.threads, f"{more:.1f}")
"""


def _run(server: Server, program: str) -> None:
    done = run_python(_PRELUDE + textwrap.dedent(program), server.target, seconds=100)
    assert done.stdout.startswith("fine"), done.stdout + done.stderr


def test_120_cycles_with_threads(mortal: Server) -> None:
    """After cycles with calls of each kind and a lease, descriptors and threads are as before, memory nearly."""
    _run(
        mortal,
        """
        def use(rounds):
            for _ in range(rounds):
                with grpcpool.insecure_channel(target, config=config) as pool:
                    pool.open()
                    assert unary(pool, ECHO, b"a") == b"a"
                    assert pool.unary_unary(ECHO).future(b"a", timeout=20).result() == b"a"
                    assert list(pool.unary_stream("/test.Test/Count")(b"2,0", timeout=20)) == [b"0", b"1"]
                    with pool.acquire() as lease:
                        assert unary(lease, ECHO, b"a") == b"a"

        use(WARM_UP)
        costs = Costs()
        use(CYCLES)
        costs.compare()
        """,
    )


@pytest.mark.parametrize("loops", ["one loop", "a loop each"])
def test_120_cycles_with_asyncio(mortal: Server, loops: str) -> None:
    """The same holds for asyncio, in one loop or in a loop for each cycle."""
    _run(
        mortal,
        f"""
        async def use(rounds):
            for _ in range(rounds):
                async with grpcpool.aio.insecure_channel(target, config=config) as pool:
                    await pool.open()
                    assert await pool.unary_unary(ECHO)(b"a", timeout=20) == b"a"
                    stream = pool.unary_stream("/test.Test/Count")(b"2,0", timeout=20)
                    assert [message async for message in stream] == [b"0", b"1"]
                    async with pool.acquire() as lease:
                        assert await lease.unary_unary(ECHO)(b"a", timeout=20) == b"a"

        def run(rounds):
            if {loops == "one loop"}:
                asyncio.run(use(rounds))
            else:
                for _ in range(rounds):
                    asyncio.run(use(1))

        import grpcpool.aio

        run(WARM_UP)
        costs = Costs()
        run(CYCLES)
        costs.compare()
        """,
    )
