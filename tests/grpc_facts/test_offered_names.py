"""Names that gRPC, or its clients, look for on channels: the pool's channels have them, whatever gRPC's have."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc.experimental import unary_unary

import grpcpool
import grpcpool.aio
from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool import PoolConfig
from support.call_server import UU, CallServer
from support.pools import PoolMaker

pytestmark = pytest.mark.timeout(120)

_LISTS = ("_unary_unary_interceptors", "_unary_stream_interceptors", "_stream_unary_interceptors")


@pytest.mark.parametrize(
    "changed", [UNCHANGED, renamed(*_LISTS, "_stream_stream_interceptors")], ids=["as it is", "renamed"]
)
def test_the_lists_of_interceptors(calls: CallServer, changed: Changed) -> None:
    """Interceptors that are appended to a pool's lists see its calls, and those of its leases, of every kind."""
    ended = changed.run("appended", calls.target)
    assert (ended.result, ended.warnings) == (8, [])


def _loop_of(channel: Any) -> Any:
    return channel._loop


def test_the_loop_of_a_channel(calls: CallServer) -> None:
    """As gRPC's channels do, pools and leases name the loop that they belong to, also after it has ended."""
    made = grpcpool.aio.insecure_channel(calls.target)
    assert _loop_of(made) is None

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        plain: Any = grpc.aio.insecure_channel(calls.target)
        async with plain, made as pool:
            # Not bound yet: it will be, to the loop that runs.
            assert _loop_of(plain) is _loop_of(pool) is loop
            async with pool.acquire() as lease:
                assert _loop_of(lease) is loop
        return loop

    ended = asyncio.run(main())
    assert _loop_of(made) is ended

    async def other() -> None:
        assert _loop_of(made) is ended

    asyncio.run(other())


@pytest.mark.parametrize("changed", [UNCHANGED, renamed("_registered_method")], ids=["as it is", "renamed"])
def test_registered_methods(calls: CallServer, make_pool: PoolMaker, changed: Changed) -> None:
    """A stub may register its methods though gRPC's channels know nothing of that."""
    ended = changed.run("registered", calls.target)
    assert (ended.result, ended.warnings) == (True, [])
    pool: Any = make_pool(calls.channel)
    assert pool.unary_unary(UU, None, None, _registered_method=True)._registered_call_handle
    assert pool.unary_unary(UU, None, None)._registered_call_handle is None


class _Older(grpc.Channel):
    """A channel of a gRPC before 1.63, or of another implementation."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._of_today = channel

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        self._of_today.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Any) -> None:
        self._of_today.unsubscribe(callback)

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None) -> Any:
        return self._of_today.unary_unary(method, request_serializer, response_deserializer)

    unary_stream: Any = unary_unary
    stream_unary: Any = unary_unary
    stream_stream: Any = unary_unary

    def close(self) -> None:
        self._of_today.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def test_registered_methods_of_older_channels(calls: CallServer, make_pool: PoolMaker) -> None:
    """Whether a method is registered is not passed on to a channel whose makers do not take it."""
    pool: Any = make_pool(lambda: _Older(calls.channel()))
    with pool.acquire() as lease:
        assert lease.unary_unary(UU, None, None, _registered_method=True)(b"ok", timeout=20) == b"0"


@pytest.mark.filterwarnings("ignore::grpc.experimental.ExperimentalApiWarning")
@pytest.mark.parametrize("registers", [False, True])
def test_calls_without_a_stub(calls: CallServer, monkeypatch: pytest.MonkeyPatch, registers: bool) -> None:
    """The functions of `grpc.experimental` call over a pool that stands for gRPC's channel."""
    pools = []

    def secure_channel(target: str, **how: Any) -> grpc.Channel:
        pools.append(grpcpool.insecure_channel(target, config=PoolConfig(max_size=1)))
        return pools[-1]

    monkeypatch.setattr(grpc, "secure_channel", secure_channel)
    assert pools == []
    how: dict[str, Any] = {"channel_credentials": grpc.local_channel_credentials(), "timeout": 20}
    # Each set of options has a channel of its own, which is kept.
    how["options"] = (("grpcpool.test", str(registers)),)
    for _ in range(2):
        if registers:
            how["_registered_method"] = True
        try:
            assert unary_unary(b"ok", calls.target, UU, **how) == b"0"
        except TypeError:
            # Before 1.63.
            assert registers
            assert "_registered_method" not in unary_unary.__code__.co_varnames
    for pool in pools:
        assert pool._get_registered_call_handle(UU)
        assert pool.stats().in_flight == 0
        pool.close()
