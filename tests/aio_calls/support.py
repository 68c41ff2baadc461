"""The ways in which asyncio calls are made, and the world of one test: a server, gRPC's own channel to it, and pools.

The server is that of the sync tests: its methods do what the (first) request says; see `calls.support_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal, Self

import grpc
from grpc.aio import EOF

import grpcpool
from calls.support_server import SS, SU, US, UU, CallServer
from grpcpool import PoolConfig, isolated
from grpcpool.aio import ChannelPool, Lease

LONG = 20.0
"""Seconds within which whatever is waited for must have happened; a test that works never waits so long."""

Outcome = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Way:
    """One of the ways to make a call: how requests are given, and how responses are taken."""

    maker: Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
    method: str
    gives: Literal["request", "iterator", "async iterator", "writes"]
    takes: Literal["await", "async for", "read"]

    @property
    def streams_in(self) -> bool:
        """Whether requests are streamed."""
        return self.gives != "request"

    @property
    def streams_out(self) -> bool:
        """Whether responses are streamed."""
        return self.takes != "await"

    @property
    def writes(self) -> bool:
        """Whether its requests are written, by `use` or by the test, once it has begun."""
        return self.gives == "writes"

    def __str__(self) -> str:
        """As tests are named."""
        return f"{self.maker}-{self.gives.replace(' ', '_')}-{self.takes.replace(' ', '_')}"

    def begin(
        self,
        channel: Any,
        command: str = "ok",
        *,
        serializer: Callable[[Any], bytes] | None = None,
        deserializer: Callable[[bytes], Any] | None = None,
        requests: Any = None,
        method: str | None = None,
        **how: Any,
    ) -> Any:
        """Begins a call, and returns it."""
        how.setdefault("timeout", LONG)
        multicallable: Any = getattr(channel, self.maker)(method or self.method, serializer, deserializer)
        request = command.encode()
        match self.gives:
            case "request":
                return multicallable(request, **how)
            case "iterator":
                return multicallable(iter([request]) if requests is None else requests, **how)
            case "async iterator":
                return multicallable(each(request) if requests is None else requests, **how)
            case "writes":
                return multicallable(**how)

    async def send(self, call: Any, command: str = "ok") -> None:
        """Sends what is not sent by itself."""
        if self.writes:
            await call.write(command.encode())
            if not command.startswith("hold:"):
                await call.done_writing()

    async def take(self, call: Any) -> Any:
        """Waits for the answer of a call: one response, or the list of them."""
        match self.takes:
            case "await":
                return await call
            case "async for":
                return [response async for response in call]
            case "read":
                return [response async for response in read_out(call)]

    async def use(self, call: Any, command: str = "ok") -> Any:
        """Sends, and takes."""
        await self.send(call, command)
        return await self.take(call)

    async def whole(self, channel: Any, command: str = "ok", **how: Any) -> Any:
        """A call from its beginning to its end; returns its answer."""
        return await self.use(self.begin(channel, command, **how), command)

    async def first(self, call: Any) -> Any:
        """The first response of a stream."""
        return await call.read() if self.takes == "read" else await anext(aiter(call))


async def each(*values: Any) -> AsyncIterator[Any]:
    """Yields the values."""
    for value in values:
        yield value


async def read_out(call: Any) -> AsyncIterator[Any]:
    """The responses that are left, taken by `read`."""
    # Intercepted calls of old releases of gRPC know no EOF.
    with contextlib.suppress(StopAsyncIteration):
        while (response := await call.read()) is not EOF:
            yield response


WAYS = (
    Way("unary_unary", UU, "request", "await"),
    Way("unary_stream", US, "request", "async for"),
    Way("unary_stream", US, "request", "read"),
    Way("stream_unary", SU, "iterator", "await"),
    Way("stream_unary", SU, "async iterator", "await"),
    Way("stream_unary", SU, "writes", "await"),
    Way("stream_stream", SS, "iterator", "async for"),
    Way("stream_stream", SS, "async iterator", "read"),
    Way("stream_stream", SS, "writes", "read"),
    Way("stream_stream", SS, "writes", "async for"),
)
KINDS = (WAYS[0], WAYS[1], WAYS[4], WAYS[7])
"""One way of each kind, which needs nothing to be written."""
UNARY, STREAM = WAYS[0], WAYS[1]


class World:
    """What a test of calls is played in; made by `world`."""

    def __init__(self, server: CallServer, stack: contextlib.AsyncExitStack) -> None:
        """Nothing is connected yet; `stack` is left when the test is over."""
        self.server = server
        self._stack = stack
        self.plain: Any = grpc.aio.insecure_channel(server.target, isolated())
        self._asks: Any = grpc.aio.insecure_channel(server.target, isolated())

    def enter(self, channel: Any) -> Any:
        """Has a channel closed when the test is over; returns it."""
        self._stack.push_async_callback(channel.close)
        return channel

    async def pool(self, **config: Any) -> ChannelPool:
        """A pool with room for one call unless told otherwise, connected."""
        config = {"max_size": 1, "max_streams": 1, **config}
        pool: ChannelPool = self.enter(grpcpool.aio.insecure_channel(self.server.target, config=PoolConfig(**config)))
        await pool.open()
        return pool

    async def full(self, **config: Any) -> Full:
        """A pool with room for one call, and one call that takes it."""
        full = await Full.of(await self.pool(**config))
        self._stack.push_async_callback(full.end)
        return full

    async def tell(self, what: Literal["held", "notes", "most"]) -> Any:
        """As `CallServer.tell`."""
        return json.loads(await self._asks.unary_unary("/calls.Test/Tell")(what.encode(), timeout=LONG))

    async def until_held(self, tag: str) -> None:
        """Returns when a call ``hold:tag`` runs."""
        while tag not in await self.tell("held"):  # noqa: ASYNC110 -- the server is asked
            await asyncio.sleep(0.002)

    async def until_let_go(self, tag: str) -> None:
        """Returns when no call ``hold:tag`` runs."""
        while tag in await self.tell("held"):  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Closes gRPC's own channels."""
        await self.plain.close()
        await self._asks.close()


class Full:
    """A pool with one place, which is taken until it is freed; by a lease, so that no interceptor sees it."""

    def __init__(self, pool: ChannelPool, lease: Lease) -> None:
        """The place is that of `lease`."""
        self.pool = pool
        self._lease = lease

    @classmethod
    async def of(cls, pool: ChannelPool) -> Self:
        """Takes the place."""
        return cls(pool, await pool.acquire(timeout=0, streams=1))

    def make_room(self) -> None:
        """Frees the place, and has the first who waits begin."""
        self._lease.release()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self.pool.stats().waiting

    async def end(self) -> None:
        """Frees the place; then nothing must be left."""
        self.make_room()
        await at_rest(self.pool)


@contextlib.asynccontextmanager
async def world(server: CallServer) -> AsyncIterator[World]:
    """A world around one server; what was made in it is closed in the end."""
    _ignore_what_grpc_leaves()
    async with contextlib.AsyncExitStack() as stack:
        made = World(server, stack)
        stack.push_async_callback(made.close)
        yield made


def _ignore_what_grpc_leaves() -> None:
    """GRPC's own tasks fail, with nobody to see, when metadata is invalid, a codec raises, or a channel is closed.

    So do its callbacks if an interceptor answers with a stream.
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
    """The one place of the pool is taken until somebody waits for it."""
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


async def until(predicate: Callable[[], Any], timeout: float = LONG) -> Any:  # noqa: ASYNC109 -- as `eventually`
    """Returns what `predicate` returns as soon as that is true.

    Raises:
        AssertionError: It was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout} s"
        await asyncio.sleep(0.002)
    return value


async def turns(number: int = 10) -> None:
    """Lets the loop do what is ready, and what that makes ready."""
    for _ in range(number):
        await asyncio.sleep(0)


async def begun(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that do this work, once they have come to where they wait."""
    tasks = [asyncio.create_task(one) for one in work]
    await turns()
    assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
    return tasks


async def outcome_of(work: Awaitable[Any]) -> Outcome:
    """How work ended, as far as who waits for it can tell."""
    try:
        return ("answer", await work)
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        return ("cancelled",)
    except grpc.aio.AioRpcError as error:
        return ("error", error.code(), error.details())
    except Exception as error:  # noqa: BLE001 -- whatever is raised is what is compared
        # The addresses in gRPC's texts differ.
        return (type(error), str(error).split(" object at ")[0])


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def status_of(call: Any) -> Outcome:
    """What a call that is over says of itself."""
    return (call.done(), call.cancelled(), await call.code(), await call.details())


async def at_rest(pool: ChannelPool) -> None:
    """The pool carries nothing, and nobody waits; what was dropped has been collected."""
    gc.collect()
    await until(lambda: pool.stats().in_flight == 0, timeout=5)
    stats = pool.stats()
    assert stats.waiting == 0
    assert 0 <= stats.size <= stats.max_size
    assert all(channel.in_flight == 0 for channel in stats.channels)


def failing(value: Any) -> Any:
    """A codec that raises."""
    raise ArithmeticError("a codec failed, as the test wants")


def bad_requests(first: int) -> Iterator[bytes]:
    """Requests of which so many come, and then an error."""
    for _ in range(first):
        yield b"ok"
    raise ArithmeticError("a request iterator failed, as the test wants")


async def bad_async_requests(first: int) -> AsyncIterator[bytes]:
    """As `bad_requests`."""
    for request in bad_requests(first):
        yield request
