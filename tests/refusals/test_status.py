"""A refusal is recognized by gRPC's report of it, in the words of each release; nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool
from grpcpool._grpc.status import is_refused_stream, says_refused
from refusals.conftest import PoolOpener
from support import aio_ways
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop
from support.pools import assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

UNARY, STREAM = "/refusals.Test/Uu", "/refusals.Test/Us"

REFUSALS = (
    # Up to 1.80, in 1.81 and 1.82, and from 1.83.
    "Received RST_STREAM with error code 7",
    "Stream removed (Received RST_STREAM with error code 7 (RST_STREAM))",
    "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
    # If it was sending just then.
    (
        "Stream removed (RST_STREAM (Received RST_STREAM with error code 7)) (Error in HTTP transport completing "
        "operation: send_trailing_metadata_finished write_state=WRITING refs=0 flags=1 peer_address=ipv4:127.0.0.1:1 "
        "(Pending writes failed due to stream closure (RST_STREAM (Received RST_STREAM with error code 7))))"
    ),
    (
        "Stream removed (Received RST_STREAM with error code 7 (RST_STREAM)) (Error in HTTP transport completing "
        "operation: send_trailing_metadata_finished write_state=WRITING refs=1 flags=1 peer_address=ipv4:127.0.0.1:1 "
        "(Pending writes failed due to stream closure (Received RST_STREAM with error code 7 (RST_STREAM))))"
    ),
    (
        "Error in HTTP transport completing operation: on_write_finished_cb write_state=IDLE refs=0 flags=1 "
        "peer_address=ipv4:127.0.0.1:1 "
        "(Pending writes failed due to stream closure (RST_STREAM (Received RST_STREAM with error code 7)))"
    ),
    (
        "Error in HTTP transport completing operation: on_write_finished_cb write_state=WRITING refs=0 flags=1 "
        "peer_address=ipv6:%5B::1%5D:1 "
        "(Pending writes failed due to stream closure (Received RST_STREAM with error code 7 (RST_STREAM)))"
    ),
)
OTHERS = (
    "unavailable:try later",
    "unavailable:REFUSED_STREAM",
    # A server that passes on another server's refusal has processed the call.
    "unavailable:orders said: Received RST_STREAM with error code 7",
    "unavailable:Received RST_STREAM with error code 7 from orders",
    "unavailable:Received RST_STREAM with error code 7 (from orders)",
    # NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, CANCEL, ENHANCE_YOUR_CALM
    *(f"reset:{code}" for code in (0, 1, 2, 3, 5, 8, 11)),
)


def _failure(channel: grpc.Channel, command: str) -> Any:
    multicallable: Any = channel.unary_unary(UNARY)
    with pytest.raises(grpc.RpcError) as caught:
        multicallable(command.encode(), timeout=10)
    return caught.value


def _failed_call(channel: grpc.Channel, command: str, how: str) -> Any:
    multicallable: Any = channel.unary_unary(UNARY) if how == "future" else channel.unary_stream(STREAM)
    call = getattr(multicallable, how)(command.encode(), timeout=10)
    with pytest.raises(grpc.RpcError):
        call.result(LONG)
    return call


@pytest.mark.parametrize("how", ["future", "__call__"])
def test_an_error_of_this_release(refusing: RefusingServer, plain: grpc.Channel, how: str) -> None:
    """Errors and failed calls of the installed gRPC are recognized as refusals."""
    refusing.begin(open=0)
    for error in (_failure(plain, "ok"), _failed_call(plain, "ok", how)):
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() in REFUSALS
        assert is_refused_stream(error)


@in_loop
async def test_an_error_of_this_release_on_asyncio(refusing: RefusingServer) -> None:
    """Errors and failed calls of asyncio's gRPC are recognized as refusals."""
    refusing.begin(open=0)
    async with refusing.aio_channel() as channel:
        multicallable: Any = channel.unary_unary(UNARY)
        call = multicallable(b"ok", timeout=LONG)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert is_refused_stream(caught.value)
        assert says_refused(await call.code(), await call.details())
        stream: Any = channel.unary_stream(STREAM)
        call = stream(b"ok", timeout=LONG)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert is_refused_stream(caught.value)
        assert says_refused(await call.code(), await call.details())


@pytest.mark.parametrize("details", REFUSALS)
def test_the_words_of_other_releases(details: str) -> None:
    """The words of each supported release are recognized, whichever is installed."""
    assert says_refused(grpc.StatusCode.UNAVAILABLE, details)
    assert not says_refused(grpc.StatusCode.INTERNAL, details)


@pytest.mark.parametrize("command", OTHERS)
def test_what_is_not_a_refusal(refusing: RefusingServer, plain: grpc.Channel, command: str) -> None:
    """A server's own failures, and streams that it resets for other reasons, are not refusals."""
    assert not is_refused_stream(_failure(plain, command))
    assert not is_refused_stream(_failed_call(plain, command, "future"))


@in_loop
async def test_what_is_not_a_refusal_on_asyncio(refusing: RefusingServer) -> None:
    """On asyncio, too, a server's own failures and streams reset for other reasons are not refusals."""
    async with refusing.aio_channel() as channel:
        multicallable: Any = channel.unary_unary(UNARY)
        taken = []
        for command in OTHERS:
            call = multicallable(command.encode(), timeout=LONG)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            if is_refused_stream(caught.value) or says_refused(await call.code(), await call.details()):
                taken.append(command)
        assert taken == []


@pytest.mark.parametrize("error", [grpc.RpcError(), ValueError("no error of gRPC's")])
def test_an_error_without_details(error: Any) -> None:
    """An error without code and details, as interceptors raise, is not a refusal."""
    assert not is_refused_stream(error)


def _outcomes(pool: grpc.Channel, command: str) -> list[Any]:
    blocking = _failure(pool, command)
    future, stream = _failed_call(pool, command, "future"), _failed_call(pool, command, "__call__")
    return [(error.code(), error.details()) for error in (blocking, future, stream)]


@pytest.mark.parametrize("command", OTHERS)
def test_other_failures_reach_the_caller_unchanged(
    refusing: RefusingServer, plain: grpc.Channel, open_pool: PoolOpener, command: str
) -> None:
    """Other failures reach the caller, once; no attempt follows, no limit is lowered, no refusal is counted."""
    pool: ChannelPool = open_pool(min_size=2, max_size=2)
    expected = _outcomes(plain, command)
    refusing.begin()
    assert _outcomes(pool, command) == expected
    assert refusing.report().handled == {command: 3}
    stats = pool.stats()
    assert stats.refused_streams == 0
    assert {channel.limit for channel in stats.channels} == {90}


def test_a_stream_that_was_answered_is_not_begun_again(refusing: RefusingServer, open_pool: PoolOpener) -> None:
    """A stream that has had a response is not sent again, whatever the server says later: no response comes twice."""
    pool = open_pool(min_size=2, max_size=2)
    multicallable: Any = pool.unary_stream(STREAM)
    call = multicallable(b"late:7", timeout=LONG)
    assert next(call) == b"0"
    refusing.let_go("resets")
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    error: Any = caught.value
    assert error.code() is call.code() is grpc.StatusCode.UNAVAILABLE
    assert_at_rest(pool)
    assert refusing.report().handled == {"late:7": 1}


@pytest.mark.parametrize("way", ["async for", "read"])
@in_loop
async def test_a_stream_that_was_answered_is_not_begun_again_on_asyncio(refusing: RefusingServer, way: str) -> None:
    """On asyncio, too, in either way of reading, a stream that has had a response is not sent again."""
    async with pool_over(refusing.aio_channel, min_size=2, max_size=2) as pool:
        await pool.open()
        multicallable: Any = pool.unary_stream(STREAM)
        call = multicallable(b"late:7", timeout=LONG)
        responses = aiter(call) if way == "async for" else aio_ways.read_out(call)
        assert await anext(responses) == b"0"
        refusing.let_go("resets")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(responses)
        assert caught.value.code() is await call.code() is grpc.StatusCode.UNAVAILABLE
        await at_rest(pool)
        assert refusing.report().handled == {"late:7": 1}
