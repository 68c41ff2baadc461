"""What differs between releases of gRPC: the pool works whichever way it is."""

from __future__ import annotations

import asyncio
import json
import weakref
from typing import Any

import grpc
import pytest

import grpcpool.aio
from aio_calls.support import world
from grpcpool import PoolConfig, PoolOpenError
from grpcpool._demo import limit as demonstration
from grpcpool._demo.threads import Threads
from grpcpool._grpc import connectivity
from grpcpool._grpc.version import GRPC_RELEASE, NOTICES_LOSSES, REFUSES_METADATA, release_of
from grpcpool._sync import arguments
from support.aio_pools import at_rest
from support.aio_ways import KINDS, STREAM, Way
from support.call_server import UU, CallServer, new_tag
from support.loops import in_loop, until
from support.pools import PoolMaker
from support.servers import ECHO, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("1.60.2", (1, 60)),
        ("1.85.0rc1", (1, 85)),
        ("1.86rc1", (1, 86)),
        ("2.0.0.dev0", (2, 0)),
        ("unknown", (1, 60)),
        ("", (1, 60)),
    ],
)
def test_the_release_is_read_from_any_version(version: str, release: tuple[int, int]) -> None:
    """A version that begins otherwise than with two numbers counts as the oldest."""
    assert release_of(version) == release
    assert release_of(grpc.__version__) == GRPC_RELEASE


# Where gRPC does not notice by itself, the pool must not rely on it.
@pytest.mark.parametrize("notices", sorted({False, NOTICES_LOSSES}))
def test_a_loss_is_noticed_either_way(make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, notices: bool) -> None:
    """An unused connection whose server died is not leased, whether gRPC notices the loss or is made to look."""
    monkeypatch.setattr(connectivity, "NOTICES_LOSSES", notices)
    with CallServer() as server:
        pool = make_pool(server.channel, max_size=1, connect_timeout=5)
        pool._driver.trusted_for = 0.0
        pool.open()
        server.restart()
        (slot,) = pool._driver.machine.fleet.slots
        slot.channel.trusted_until = 0.0
        with pool.acquire(timeout=LONG) as lease:
            unary: Any = lease.unary_unary(UU)
            assert unary(b"ok", timeout=LONG) == b"0"
        pool.close()


async def _freed(native: weakref.ref[Any]) -> None:
    await until(lambda: native() is None)


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("way", KINDS, ids=str)
def test_ended_calls_are_freed(calls: CallServer, way: Way) -> None:
    """What gRPC has of a call is freed when the call is over and dropped, by no garbage collection."""

    @in_loop
    async def test() -> None:
        async with world(calls) as at:
            pool = await at.pool()
            for _ in range(3):
                call = way.begin(pool)
                native = weakref.ref(call._stage.native)
                assert await way.use(call)
                del call
                await _freed(native)
            await at_rest(pool)

    test()


@in_loop
async def test_close_ends_streams(calls: CallServer) -> None:
    """`close()` ends the streams that run, also where gRPC's own does not."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = STREAM.begin(pool, f"hold:{tag}")
        await at.until_held(tag)
        await pool.close()
        await at.until_let_go(tag)
        with pytest.raises(asyncio.CancelledError):
            await STREAM.take(call)


@pytest.mark.parametrize("scales", [False, True])
def test_the_demonstration_without_scaling(monkeypatch: pytest.MonkeyPatch, scales: bool) -> None:
    """The demonstration has a way that scales connections if this gRPC does."""
    monkeypatch.setattr(demonstration, "SCALES_CONNECTIONS", scales)
    ways = demonstration.ways_of(Threads())
    assert (ways["gRPC's scaling"] is not None) is scales
    assert (demonstration.scaling_options(3) is not None) is scales


_RETRIES_LATE = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "60s",
                    "maxBackoff": "60s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_OPTIONS = [("grpc.service_config", _RETRIES_LATE)]
_CONFIG = PoolConfig(connect_timeout=3 * LONG)


def test_why_a_channel_does_not_connect_is_known_at_once(dead: str) -> None:
    """The call that asks for it is not repeated, though the service config says so for all methods."""
    with (
        grpcpool.insecure_channel(dead, _OPTIONS, config=_CONFIG) as pool,
        pytest.raises(PoolOpenError, match="failed to connect"),
    ):
        pool.open(timeout=LONG)


@in_loop
async def test_why_a_channel_does_not_connect_is_known_at_once_on_asyncio(dead: str) -> None:
    """The same on asyncio."""
    async with grpcpool.aio.insecure_channel(dead, _OPTIONS, config=_CONFIG) as pool:
        with pytest.raises(PoolOpenError, match="failed to connect"):
            await pool.open(timeout=LONG)


@pytest.mark.parametrize("refuses", [True, False])
def test_metadata_that_cannot_be_sent(
    server: Server, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    """A call that waits for a place is refused, or fails, as one that does not wait in the same release."""
    monkeypatch.setattr(arguments, "REFUSES_METADATA", refuses)
    pool: Any = make_pool(server.channel, max_size=1, max_streams=1)
    wrong = (("Upper Case", "value"),)
    with pool.acquire(timeout=LONG), pytest.raises((ValueError, grpc.RpcError)) as waits:
        pool.unary_unary(ECHO)(b"", metadata=wrong, timeout=LONG)
    assert isinstance(waits.value, ValueError) == refuses
    if refuses == REFUSES_METADATA:
        with pytest.raises((ValueError, grpc.RpcError)) as begins:
            pool.unary_unary(ECHO)(b"", metadata=wrong, timeout=LONG)
        assert isinstance(begins.value, ValueError) == refuses
