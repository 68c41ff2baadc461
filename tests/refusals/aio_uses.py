"""The ways to make a call with one request on asyncio, and to take its outcome."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from grpc.aio import EOF

from refusals.uses import US, UU, comparable
from support.aio_ways import read_out
from support.loops import until
from support.waiting import LONG


@dataclasses.dataclass(frozen=True)
class Use:
    """One of the ways.

    Attributes:
        name: The name in test ids.
        maker: The channel's method that makes the multicallable.
        take: Makes the call by `begin`, and returns what its caller sees.
        command: The request.
    """

    name: str
    maker: Literal["unary_unary", "unary_stream"]
    take: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
    command: str = "ok"

    def __str__(self) -> str:
        """As tests are named."""
        return self.name

    async def whole(self, channel: Any, **how: Any) -> Any:
        """Makes a call from start to end; returns what its caller sees."""
        how.setdefault("timeout", LONG)
        method = UU if self.maker == "unary_unary" else US
        multicallable: Any = getattr(channel, self.maker)(method)
        return await self.take(lambda: multicallable(self.command.encode(), **how))


Begin = Callable[[], Any]


async def _all_of(call: Any) -> tuple[Any, ...]:
    """Everything that a finished call reports."""
    return (
        call.done(),
        call.cancelled(),
        await call.code(),
        await call.details(),
        tuple(await call.initial_metadata()),
        tuple(await call.trailing_metadata()),
    )


async def _awaited(begin: Begin) -> Any:
    call = begin()
    return await call, await _all_of(call), await call


def _asked_first(*names: str) -> Callable[[Begin], Coroutine[Any, Any, Any]]:
    """Asks the call for these, in this order, before its result is awaited."""

    async def take(begin: Begin) -> Any:
        call = begin()
        answers = [comparable(await getattr(call, name)()) for name in names]
        return answers, await call, await _all_of(call)

    return take


async def _polled(begin: Begin) -> Any:
    call = begin()
    await until(call.done)
    return await _all_of(call), await call


async def _done_callback(begin: Begin) -> Any:
    told: list[Any] = []
    called = asyncio.Event()

    def tell(call: Any) -> None:
        told.append((call.done(), call.cancelled()))
        called.set()

    call = begin()
    call.add_done_callback(tell)
    async with asyncio.timeout(LONG):
        await called.wait()
    return told, await _all_of(call)


async def _only_done_callback(begin: Begin) -> Any:
    told: asyncio.Queue[Any] = asyncio.Queue()
    # Nothing else holds the call.
    begin().add_done_callback(told.put_nowait)
    async with asyncio.timeout(LONG):
        call = await told.get()
    return told.qsize(), await _all_of(call), await call


async def _several(begin: Begin) -> Any:
    call = begin()

    async def wait() -> Any:
        return await call

    return await asyncio.gather(wait(), call.code(), wait(), call.details(), call.wait_for_connection(), wait())


async def _task(begin: Begin) -> Any:
    async def wait() -> Any:
        return await begin()

    return await asyncio.create_task(wait())


async def _as_completed(begin: Begin) -> Any:
    async def wait() -> Any:
        return await begin()

    return [await each for each in asyncio.as_completed([wait()])]


async def _iterated(begin: Begin) -> Any:
    call = begin()
    messages = [message async for message in call]
    return messages, await _all_of(call)


async def _read(begin: Begin) -> Any:
    call = begin()
    messages = [await call.read() for _ in range(3)]
    return messages, await call.read() is EOF, await _all_of(call)


async def _iterator_first(begin: Begin) -> Any:
    call = begin()
    iterator = aiter(call)
    # Long enough for a refusal to arrive, and for the call to be sent again.
    await asyncio.sleep(0.05)
    return [message async for message in iterator]


async def _left_alone_first(begin: Begin) -> Any:
    call = begin()
    await asyncio.sleep(0.05)
    return [message async for message in read_out(call)]


async def _connection_first(begin: Begin) -> Any:
    call = begin()
    connected = await call.wait_for_connection()
    return connected, [message async for message in call]


async def _metadata_first(begin: Begin) -> Any:
    call = begin()
    metadata = tuple(await call.initial_metadata())
    return metadata, [message async for message in call]


async def _code_first(begin: Begin) -> Any:
    call = begin()
    return await call.code(), await call.details(), [message async for message in call]


async def _stream_callback(begin: Begin) -> Any:
    told: list[Any] = []
    call = begin()
    call.add_done_callback(lambda call: told.append(call.done()))
    return [message async for message in call], told


async def _asked_while_read(begin: Begin) -> Any:
    call = begin()

    async def read() -> Any:
        return [message async for message in call]

    return await asyncio.gather(read(), call.initial_metadata(), call.code(), call.trailing_metadata())


UNARY = (
    Use("awaited", "unary_unary", _awaited),
    Use("code_first", "unary_unary", _asked_first("code")),
    Use("details_first", "unary_unary", _asked_first("details", "debug_error_string")),
    Use("initial_metadata_first", "unary_unary", _asked_first("initial_metadata")),
    Use("trailing_metadata_first", "unary_unary", _asked_first("trailing_metadata")),
    Use("connection_first", "unary_unary", _asked_first("wait_for_connection")),
    Use("done_polled", "unary_unary", _polled),
    Use("done_callback", "unary_unary", _done_callback),
    Use("only_done_callback", "unary_unary", _only_done_callback),
    Use("several_awaiters", "unary_unary", _several),
    Use("in_a_task", "unary_unary", _task),
    Use("as_completed", "unary_unary", _as_completed),
)
STREAMS = (
    Use("iterated", "unary_stream", _iterated),
    Use("read", "unary_stream", _read),
    Use("iterator_first", "unary_stream", _iterator_first),
    Use("stream_left_alone_first", "unary_stream", _left_alone_first),
    Use("stream_connection_first", "unary_stream", _connection_first),
    Use("stream_metadata_first", "unary_stream", _metadata_first),
    Use("stream_code_first", "unary_stream", _code_first, "count:0"),
    Use("stream_done_callback", "unary_stream", _stream_callback),
    Use("stream_asked_while_read", "unary_stream", _asked_while_read),
)
USES = (*UNARY, *STREAMS)
"""All of them."""
