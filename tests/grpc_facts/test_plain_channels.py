"""Channels whose requests only gRPC sees: of these the pool serializes the requests itself."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool import testing
from grpcpool._grpc.plain_channels import is_plain
from support.call_server import CallServer
from support.loops import in_loop

pytestmark = pytest.mark.timeout(120)


class _Adds(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details, request)


class _AddsOnLoop(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


def test_of_threads(calls: CallServer) -> None:
    """Those of gRPC's, unless interceptors are around them; those of other makes are not."""
    with grpc.insecure_channel(calls.target) as channel:
        assert is_plain(channel)
        assert not is_plain(grpc.intercept_channel(channel, _Adds()))
    assert not is_plain(testing.FakeChannel())


@in_loop
async def test_of_asyncio(calls: CallServer) -> None:
    """Those of gRPC's that have no interceptor, of any kind of call."""
    async with grpc.aio.insecure_channel(calls.target) as channel:
        assert is_plain(channel)
    async with grpc.aio.insecure_channel(calls.target, interceptors=[_AddsOnLoop()]) as channel:
        assert not is_plain(channel)


_MODULE_RENAMED = Changed(
    {r"\bfrom \._channel import\b": "from ._channels import"}, {"grpc.aio._channels": "grpc.aio._channel"}
)


@pytest.mark.parametrize(
    "changed",
    [UNCHANGED, _MODULE_RENAMED, renamed("_unary_unary_interceptors")],
    ids=["as it is", "another module", "another list"],
)
def test_without_grpcs_names(calls: CallServer, changed: Changed) -> None:
    """A call over a channel that the pool does not know for plain is sent as well."""
    ended = changed.run("aio_serialized", calls.target)
    assert (ended.result, ended.warnings) == (changed is UNCHANGED, [])
