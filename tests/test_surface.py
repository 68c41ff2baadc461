"""What completion offers on the public objects: gRPC's names and the documented ones, and nothing internal."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import pytest

import grpcpool
import grpcpool.aio
from grpcpool.testing import FakeFactory, aio
from support.loops import in_loop

pytestmark = pytest.mark.timeout(60)

_POOL = {
    *("acquire", "add_listener", "closed", "config", "name", "open", "refresh", "resize", "stats", "target"),
}
_LEASE = {"created_at", "discard", "release", "used_at"}

_MULTICALLABLES: dict[str, tuple[type, type]] = {
    "unary_unary": (grpc.UnaryUnaryMultiCallable, grpc.aio.UnaryUnaryMultiCallable),
    "unary_stream": (grpc.UnaryStreamMultiCallable, grpc.aio.UnaryStreamMultiCallable),
    "stream_unary": (grpc.StreamUnaryMultiCallable, grpc.aio.StreamUnaryMultiCallable),
    "stream_stream": (grpc.StreamStreamMultiCallable, grpc.aio.StreamStreamMultiCallable),
}


def _offered(it: object) -> set[str]:
    return {name for name in dir(it) if not name.startswith("_")}


def _multicallables(channel: Any) -> Iterator[tuple[set[str], set[str]]]:
    """What the multicallables of a channel offer, and what gRPC's do."""
    world = 1 if isinstance(channel, grpc.aio.Channel) else 0
    for kind, types in _MULTICALLABLES.items():
        yield _offered(getattr(channel, kind)("/shop.Orders/Get")), _offered(types[world])


def _calls(channel: Any) -> list[Any]:
    """A call of each kind, which fails; those that block are begun as futures."""
    calls = []
    for kind in _MULTICALLABLES:
        made, request = getattr(channel, kind)("/shop.Orders/Get"), b"" if kind.startswith("unary") else iter(())
        calls.append(getattr(made, "future", made)(request, timeout=0.1))
    return calls


def test_a_pool_offers_what_is_documented() -> None:
    """A pool, and a handle on a shared one, offer a channel's names and the pool's."""
    with grpcpool.ChannelPool(FakeFactory()) as pool, grpcpool.shared_channel("127.0.0.1:1") as handle:
        assert _offered(pool) == _offered(grpc.Channel) | _POOL
        assert _offered(handle) == _offered(pool)
        for channel in (pool, handle):
            for offered, grpcs in _multicallables(channel):
                assert offered == grpcs


def test_a_lease_offers_what_is_documented() -> None:
    """A lease offers a channel's names and the lease's."""
    with grpcpool.ChannelPool(FakeFactory()) as pool, pool.acquire() as lease:
        assert _offered(lease) == _offered(grpc.Channel) | _LEASE
        for offered, grpcs in _multicallables(lease):
            assert offered == grpcs


@in_loop
async def test_a_pool_of_asyncio_offers_what_is_documented() -> None:
    """A pool, and a handle on a shared one, offer a channel's names and the pool's."""
    async with (
        grpcpool.aio.ChannelPool(aio.FakeFactory()) as pool,
        grpcpool.aio.shared_channel("127.0.0.1:1") as handle,
    ):
        assert _offered(pool) == _offered(grpc.aio.Channel) | _POOL
        assert _offered(handle) == _offered(pool)
        for channel in (pool, handle):
            for offered, grpcs in _multicallables(channel):
                assert offered == grpcs


@in_loop
async def test_a_lease_of_asyncio_offers_what_is_documented() -> None:
    """A lease offers a channel's names and the lease's; what gives one is a coroutine."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory()) as pool:
        acquire = pool.acquire()
        assert _offered(acquire) == _offered(Coroutine)
        async with acquire as lease:
            assert _offered(lease) == _offered(grpc.aio.Channel) | _LEASE
            for offered, grpcs in _multicallables(lease):
                assert offered == grpcs


def test_a_call_offers_what_grpcs_own_does() -> None:
    """A call over a pool offers nothing else, whether it waits for its place or runs."""
    with grpc.insecure_channel("127.0.0.1:1") as plain, grpcpool.insecure_channel("127.0.0.1:1") as pool:
        for own in (_calls(pool), _calls(pool)):
            for call, grpcs in zip(own, _calls(plain), strict=True):
                assert _offered(call) == _offered(grpcs)


@in_loop
async def test_a_call_of_asyncio_offers_what_grpcs_own_does() -> None:
    """Same as above, on asyncio."""
    async with (
        grpc.aio.insecure_channel("127.0.0.1:1") as plain,
        grpcpool.aio.ChannelPool(lambda: grpc.aio.insecure_channel("127.0.0.1:1")) as pool,
    ):
        for call, grpcs in zip(_calls(pool), _calls(plain), strict=True):
            assert _offered(call) == _offered(grpcs)
            call.cancel()
            grpcs.cancel()
