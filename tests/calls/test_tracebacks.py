"""How much the pool adds to the traceback of a failed call."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest

import grpcpool
from support.call_server import UU, CallServer
from support.tracebacks import MOST_TIMES_GRPCS, size_of

pytestmark = pytest.mark.timeout(60)


def _blocking(channel: Any) -> Callable[[], object]:
    return partial(channel.unary_unary(UU), b"fail")


def _with_call(channel: Any) -> Callable[[], object]:
    return partial(channel.unary_unary(UU).with_call, b"fail")


def _future(channel: Any) -> Callable[[], object]:
    result: Callable[[], object] = channel.unary_unary(UU).future(b"fail").result
    return result


def _size(fails: Callable[[], object]) -> tuple[int, int]:
    error: Any
    try:
        fails()
    except grpc.RpcError as failed:
        error = failed
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    return size_of(error)


@pytest.mark.parametrize("begin", [_blocking, _with_call, _future])
def test_a_failed_call_has_about_the_traceback_of_grpcs_own(
    calls: CallServer,
    plain: grpc.Channel,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Any], Callable[[], object]],
) -> None:
    """The pool, a lease and a handle chain no other error, and add at most half as much again."""
    # The pool of the handle ends with it.
    monkeypatch.setattr("grpcpool._sync.shared.LINGERS_FOR", 0.0)
    frames, lines = _size(begin(plain))
    pool = grpcpool.ChannelPool(calls.channel)
    handle = grpcpool.shared_channel(calls.target)
    with pool, handle, pool.acquire(streams=1) as lease:
        for channel in (pool, handle, lease):
            more_frames, more_lines = _size(begin(channel))
            assert more_frames <= MOST_TIMES_GRPCS * frames, channel
            assert more_lines <= MOST_TIMES_GRPCS * lines, channel


def test_a_call_that_has_waited_has_no_longer_traceback(single: grpcpool.ChannelPool, plain: grpc.Channel) -> None:
    """Waiting for a place leaves nothing in the traceback of what the server answers afterwards."""
    frames, _ = _size(_blocking(plain))
    held = single.acquire()
    future = single.unary_unary(UU).future(b"fail")
    held.release()
    assert _size(future.result)[0] <= MOST_TIMES_GRPCS * frames
    assert single.stats().waited == 1


def test_the_frames_of_an_interceptor_stay(calls: CallServer) -> None:
    """Code of the user below the pool is in the traceback, and so is the line of gRPC's that raised."""

    class Passes(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            response = continuation(client_call_details, request)
            response.result()
            return response

    with (
        grpcpool.ChannelPool(lambda: grpc.intercept_channel(calls.channel(), Passes())) as pool,
        pytest.raises(grpc.RpcError) as caught,
    ):
        pool.unary_unary(UU)(b"fail")
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert "intercept_unary_unary" in names
    *_, (last, _) = traceback.walk_tb(caught.value.__traceback__)
    assert last.f_globals["__name__"].startswith("grpc.")


@pytest.mark.parametrize("how", ["__call__", "with_call"])
def test_wrong_arguments_name_the_method(calls: CallServer, how: str) -> None:
    """As with gRPC's own multicallable, the error says which method was called wrongly."""
    with grpcpool.ChannelPool(calls.channel) as pool:
        method = getattr(pool.unary_unary(UU), how)
        with pytest.raises(TypeError, match=rf"UnaryUnary\.{how}\(\) missing 1 required .* 'request'"):
            method()
