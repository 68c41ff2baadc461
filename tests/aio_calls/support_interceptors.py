"""Interceptors for tests, and the places where they can be put."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal

import grpc

import grpcpool
from aio_calls.support import World
from grpcpool import PoolConfig, isolated
from grpcpool.aio import ChannelPool

Intercept = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]
"""Given what goes on, the details and the request, returns the call, or what it answers instead."""

Place = Literal["argument", "lists", "lists later", "channels"]
"""Where interceptors are put: given to the maker of a pool; appended to its lists; the same, but after the
multicallables were made; or given to the channels in it."""

POOLS: tuple[Place, ...] = ("argument", "lists", "lists later")
PLACES: tuple[Place, ...] = (*POOLS, "channels")

LISTS = (
    "_unary_unary_interceptors",
    "_unary_stream_interceptors",
    "_stream_unary_interceptors",
    "_stream_stream_interceptors",
)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


def of_all_kinds(intercept: Intercept) -> list[Any]:
    """One interceptor of each kind, in the order of `LISTS`; gRPC lists one of several kinds under its first kind."""
    return [kind(intercept) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]


def native(at: World, *intercepts: Intercept) -> Any:
    """GRPC's own channel with these interceptors."""
    interceptors = [one for intercept in intercepts for one in of_all_kinds(intercept)]
    return at.enter(grpc.aio.insecure_channel(at.server.target, isolated(), interceptors=interceptors))


async def intercepted(at: World, place: Place, *intercepts: Intercept, **config: Any) -> ChannelPool:
    """A pool with these interceptors, in this order, and with room for one call by default."""
    settings = PoolConfig(**{"max_size": 1, "max_streams": 1, **config})
    interceptors = [one for intercept in intercepts for one in of_all_kinds(intercept)]
    target = at.server.target
    if place == "channels":
        pool = ChannelPool(
            lambda: grpc.aio.insecure_channel(target, isolated(), interceptors=interceptors), settings, name="inside"
        )
    elif place == "argument":
        pool = grpcpool.aio.insecure_channel(target, interceptors=interceptors, config=settings)
    else:
        pool = grpcpool.aio.insecure_channel(target, config=settings)
    at.enter(pool)
    if place == "lists":
        append(pool, *intercepts)
    await pool.open()
    return pool


def append(pool: Any, *intercepts: Intercept) -> None:
    """Appends to the pool's lists of interceptors, as Google's generated clients do."""
    for intercept in intercepts:
        for name, interceptor in zip(LISTS, of_all_kinds(intercept), strict=True):
            getattr(pool, name).append(interceptor)


# --- what interceptors do -------------------------------------------------------------------------------------------


class Counting:
    """Counts the calls, and adds to the metadata."""

    def __init__(self, name: str = "intercepted") -> None:
        """Counts from 0; adds `name`."""
        self.name = name
        self.methods: list[str] = []

    async def __call__(self, go_on: Any, details: Any, request: Any) -> Any:
        """Calls on."""
        self.methods.append(details.method.decode())
        metadata = grpc.aio.Metadata(*(details.metadata or ()), (self.name, "yes"))
        return await go_on(details._replace(metadata=metadata), request)


async def passes(go_on: Any, details: Any, request: Any) -> Any:
    """Calls on."""
    return await go_on(details, request)


async def raises(go_on: Any, details: Any, request: Any) -> Any:
    """Raises an error."""
    raise ArithmeticError("an interceptor failed, as the test wants")


async def raises_status(go_on: Any, details: Any, request: Any) -> Any:
    """Raises an error with a status, as a call does."""
    empty = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, empty, empty, "as the test wants", "debug")


async def answers(go_on: Any, details: Any, request: Any) -> Any:
    """Answers itself, and makes no call."""
    return b"answered"


async def answers_with_a_stream(go_on: Any, details: Any, request: Any) -> AsyncIterator[bytes]:
    """Answers itself with responses, and makes no call."""

    async def responses() -> AsyncIterator[bytes]:
        for response in (b"a", b"b"):
            yield response

    return responses()


async def wraps_responses(go_on: Any, details: Any, request: Any) -> AsyncIterator[bytes]:
    """Puts a generator around the responses, as OpenTelemetry's does."""
    call = await go_on(details, request)

    async def responses() -> AsyncIterator[bytes]:
        async for response in call:
            yield response

    return responses()


async def awaits(go_on: Any, details: Any, request: Any) -> Any:
    """Waits for the end of the call before it returns it, as interceptors that log or measure do."""
    call = await go_on(details, request)
    await call.code()
    return call


async def goes_on_twice(go_on: Any, details: Any, request: Any) -> Any:
    """Makes the call again, with another request, if it failed."""
    call = await go_on(details, request)
    if await call.code() is grpc.StatusCode.OK:
        return call
    return await go_on(details, b"ok")
