"""Behind a balancer of connections the servers' own stream limit applies, and is below the pool's `max_streams`.

Calls above the limit wait in the client or are refused by the server, depending on gRPC's release and on chance. A
refused call is sent again elsewhere, and its caller does not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from components import tasks
from components.conftest import PoolOpener
from components.proxies import HAProxy
from support.loops import run
from support.servers import COUNT, SLOW, Server, unary
from support.waiting import LONG, together

pytestmark = pytest.mark.timeout(60)

CALLERS = 64
EACH = 10


@pytest.fixture(scope="module")
def front() -> Iterator[HAProxy]:
    """In front of two servers that take 20 calls on a connection each."""
    with (
        Server({"max_concurrent_streams": 20}) as one,
        Server({"max_concurrent_streams": 20}) as two,
        HAProxy([one, two]) as front,
    ):
        yield front


@pytest.mark.parametrize("kind", ["blocking", "future", "stream"])
def test_no_call_fails(front: HAProxy, pool_of: PoolOpener, kind: str) -> None:
    """Each call of many threads is answered, whatever the servers refuse."""
    pool = pool_of(front, max_size=2)
    slow: Any = pool.unary_unary(SLOW)
    count: Any = pool.unary_stream(COUNT)
    calls: dict[str, Callable[[], object]] = {
        "blocking": lambda: unary(pool, SLOW, b"20"),
        "future": lambda: slow.future(b"20", timeout=LONG).result(),
        "stream": lambda: b"".join(count(b"2,10", timeout=LONG)),
    }
    answer = b"01" if kind == "stream" else b"20"
    answers = together(CALLERS, lambda _: [calls[kind]() for _ in range(EACH)])
    assert answers == [[answer] * EACH] * CALLERS


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_no_aio_call_fails(front: HAProxy, kind: str) -> None:
    """Each call of many tasks is answered, whatever the servers refuse."""

    async def main() -> None:
        async with tasks.pool_of(front, max_size=2) as pool:
            slow: Any = pool.unary_unary(SLOW)
            count: Any = pool.unary_stream(COUNT)

            async def stream() -> bytes:
                return b"".join([answer async for answer in count(b"2,10", timeout=LONG)])

            calls: dict[str, Callable[[], Awaitable[bytes]]] = {
                "unary": lambda: slow(b"20", timeout=LONG),
                "stream": stream,
            }

            async def caller() -> list[bytes]:
                return [await calls[kind]() for _ in range(EACH)]

            answer = b"01" if kind == "stream" else b"20"
            assert await asyncio.gather(*(caller() for _ in range(CALLERS))) == [[answer] * EACH] * CALLERS

    run(main())
