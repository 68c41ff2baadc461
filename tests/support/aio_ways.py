"""The ways in which asyncio calls are made, and how a call ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import grpc
from grpc.aio import EOF

from support.call_server import SS, SU, US, UU
from support.waiting import LONG

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
        """Whether the requests are written after the call has begun, by `use` or by the test."""
        return self.gives == "writes"

    @property
    def ends_unread(self) -> bool:
        """Whether the call ends although nothing reads or writes, so that it goes on when it is dropped."""
        return not (self.streams_out or self.writes)

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
        """Sends what a call with written requests does not send by itself."""
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
        """Sends, and takes the answer."""
        await self.send(call, command)
        return await self.take(call)

    async def whole(self, channel: Any, command: str = "ok", **how: Any) -> Any:
        """Makes a call from start to end; returns its answer."""
        return await self.use(self.begin(channel, command, **how), command)

    async def first(self, call: Any) -> Any:
        """The first response of a stream."""
        return await call.read() if self.takes == "read" else await anext(aiter(call))


async def each(*values: Any) -> AsyncIterator[Any]:
    """Yields the values."""
    for value in values:
        yield value


async def read_out(call: Any) -> AsyncIterator[Any]:
    """The remaining responses, taken by `read`."""
    # Intercepted calls of gRPC's old releases do not return EOF.
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
END_UNREAD = tuple(way for way in WAYS if way.ends_unread)
"""They go on when they are dropped."""
END_DROPPED = tuple(way for way in WAYS if not way.ends_unread)
"""They are cancelled when they are dropped."""


async def outcome_of(work: Awaitable[Any]) -> Outcome:
    """How work ended, as far as its awaiter can see."""
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
    """What a finished call reports."""
    return (call.done(), call.cancelled(), await call.code(), await call.details())
