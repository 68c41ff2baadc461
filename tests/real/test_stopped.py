"""A process that is stopped while it connects, as by a debugger or a scheduler that has no time for it."""

from __future__ import annotations

import signal
import time

import pytest

from support.programs import started_python
from support.servers import Server

pytestmark = pytest.mark.timeout(60)

_THREADS = """
import sys, grpcpool
from support.servers import ECHO

what, target = sys.argv[1:]
config = grpcpool.PoolConfig(connect_timeout=1, min_size=2 if what == "open" else 0)
with grpcpool.insecure_channel(target, config=config) as channel:
    print("begins", flush=True)
    if what == "call":
        channel.unary_unary(ECHO)(b"")
    elif what == "future":
        channel.unary_unary(ECHO).future(b"", timeout=30).result()
    elif what == "stream":
        list(channel.stream_stream(ECHO)(iter([b""])))
    elif what == "lease":
        channel.acquire().release()
    else:
        channel.open()
    print(channel.stats().open_failures)
"""

_ASYNCIO = """
import asyncio, sys, grpcpool.aio
from support.servers import ECHO

what, target = sys.argv[1:]
config = grpcpool.PoolConfig(connect_timeout=1, min_size=2 if what == "open" else 0)

async def main():
    async with grpcpool.aio.insecure_channel(target, config=config) as channel:
        print("begins", flush=True)
        if what in ("call", "future"):
            await channel.unary_unary(ECHO)(b"")
        elif what == "stream":
            call = channel.unary_stream(ECHO)(b"")
            await call.read()
        elif what == "lease":
            (await channel.acquire()).release()
        else:
            await channel.open()
        print(channel.stats().open_failures)

asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["call", "future", "stream", "lease", "open"])
@pytest.mark.parametrize("program", [_THREADS, _ASYNCIO], ids=["threads", "asyncio"])
def test_the_time_that_it_stood_still_does_not_count(server: Server, program: str, what: str) -> None:
    """What was being opened is not given up for the time in which nothing could run, wherever that caught it."""
    with started_python("-c", program, what, server.target) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begins\n"
        client.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        client.send_signal(signal.SIGCONT)
        assert client.stdout.read() == "0\n"
