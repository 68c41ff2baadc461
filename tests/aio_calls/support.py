"""The world of one test of asyncio calls: a server, gRPC's own channel to it, and pools.

The server is that of the sync tests: its methods do what the (first) request says; see `support.call_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Literal, Self

import grpc
import pytest

import grpcpool
from grpcpool import PoolConfig, isolated
from grpcpool.aio import ChannelPool, Lease
from support.aio_pools import at_rest, unary
from support.call_server import TELL, CallServer
from support.loops import settle, until


class World:
    """The server, channels and pools of one test; made by `world`."""

    def __init__(self, server: CallServer, stack: contextlib.AsyncExitStack) -> None:
        """Nothing is connected yet; `stack` is left when the test is over."""
        self.server = server
        self._stack = stack
        self.plain: Any = grpc.aio.insecure_channel(server.target, isolated())
        self._asks: Any = grpc.aio.insecure_channel(server.target, isolated())

    def enter(self, channel: Any) -> Any:
        """Returns the channel, which is closed when the test is over."""
        self._stack.push_async_callback(channel.close)
        return channel

    async def pool(self, **config: Any) -> ChannelPool:
        """A connected pool, with room for one call by default."""
        config = {"max_size": 1, "max_streams": 1, **config}
        pool: ChannelPool = self.enter(grpcpool.aio.insecure_channel(self.server.target, config=PoolConfig(**config)))
        await pool.open()
        return pool

    async def full(self, **config: Any) -> Full:
        """A pool with room for one call, and a lease that takes it."""
        full = await Full.of(await self.pool(**config))
        self._stack.push_async_callback(full.end)
        return full

    async def tell(self, what: Literal["held", "notes", "most"]) -> Any:
        """Same as `CallServer.tell`."""
        return json.loads(await unary(self._asks, TELL, what.encode()))

    async def until_held(self, tag: str) -> None:
        """Returns when a call ``hold:tag`` runs."""
        while tag not in await self.tell("held"):  # noqa: ASYNC110 -- the server is asked
            await asyncio.sleep(0.002)

    async def until_let_go(self, tag: str) -> None:
        """Returns when no call ``hold:tag`` runs."""
        while tag in await self.tell("held"):  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.002)

    async def let_go(self, tag: str) -> None:
        """A call ``hold:tag``, which runs, is answered."""
        await unary(self._asks, TELL, tag.encode())

    async def close(self) -> None:
        """Closes gRPC's own channels."""
        await self.plain.close()
        await self._asks.close()


class Full:
    """A pool whose one place is taken until it is freed; by a lease, so that no interceptor sees it."""

    def __init__(self, pool: ChannelPool, lease: Lease) -> None:
        """The place is that of `lease`."""
        self.pool = pool
        self._lease = lease

    @classmethod
    async def of(cls, pool: ChannelPool) -> Self:
        """Takes the place."""
        return cls(pool, await pool.acquire(timeout=0, streams=1))

    def make_room(self) -> None:
        """Frees the place, so that the first waiter starts."""
        self._lease.release()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self.pool.stats().waiting

    async def end(self) -> None:
        """Frees the place; then nothing may be left."""
        self.make_room()
        await at_rest(self.pool)


@contextlib.asynccontextmanager
async def world(server: CallServer) -> AsyncIterator[World]:
    """A world around one server; what was made in it is closed at the end."""
    _ignore_what_grpc_leaves()
    async with contextlib.AsyncExitStack() as stack:
        made = World(server, stack)
        stack.push_async_callback(made.close)
        yield made


def _ignore_what_grpc_leaves() -> None:
    """Ignores gRPC's own tasks that fail unseen: with invalid metadata, a codec that raises, or a closed channel.

    Its callbacks fail the same way if an interceptor answers with a stream.
    """
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not _is_grpcs(context) and handler is not None:
            handler(loop, context)

    loop.set_exception_handler(handle)


def _is_grpcs(context: dict[str, Any]) -> bool:
    task = context.get("future") or context.get("task")
    if not isinstance(task, asyncio.Task):
        return "InterceptedCall._fire_or_add_pending_done_callbacks" in str(context.get("message"))
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.endswith(("grpc/aio/_call.py", "grpc/aio/_interceptor.py"))


@contextlib.asynccontextmanager
async def crowded(pool: ChannelPool) -> AsyncIterator[None]:
    """The pool's one place is taken until a call waits for it."""
    full = await Full.of(pool)

    async def make_room() -> None:
        try:
            await until(lambda: pool.stats().waiting == 1)
        finally:
            full.make_room()

    making = asyncio.create_task(make_room())
    try:
        yield
    finally:
        await making


async def begun(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that do this work, once each has reached the point where it waits."""
    tasks = [asyncio.create_task(one) for one in work]
    await settle(10)
    assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
    return tasks


def failing(value: Any) -> Any:
    """A codec that raises."""
    raise ArithmeticError("a codec failed, as the test wants")


def bad_requests(first: int) -> Iterator[bytes]:
    """Requests: `first` good ones, and then an error."""
    for _ in range(first):
        yield b"ok"
    raise ArithmeticError("a request iterator failed, as the test wants")


async def bad_async_requests(first: int) -> AsyncIterator[bytes]:
    """Same as `bad_requests`, for asyncio."""
    for request in bad_requests(first):
        yield request


async def cancelled(work: Coroutine[Any, Any, Any], at: World, tag: str) -> tuple[Any, ...]:
    """The arguments of the error that ends the work, which is cancelled once the server has the call."""
    task = asyncio.create_task(work)
    await at.until_held(tag)
    task.cancel("as the test wants")
    await asyncio.wait([task])
    arguments = await _arguments(task)
    # Its error holds the frame of an interceptor, and that the call.
    del task
    await at.until_let_go(tag)
    return arguments


async def _arguments(task: asyncio.Task[Any]) -> tuple[Any, ...]:
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    return raised.value.args
