"""Handles over interceptors that return objects of their own for calls."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import grpcpool
from support.call_server import UU, CallServer, new_tag

pytestmark = pytest.mark.timeout(60)


class _Future:
    """What an interceptor returns for a call: a future, not more, which cannot be referred to weakly."""

    __slots__ = ("call",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, call: Any) -> None:
        self.call = call

    def __getattr__(self, name: str) -> Any:
        if name not in ("result", "cancel", "cancelled", "done", "add_done_callback"):
            raise AttributeError(name)
        return getattr(self.call, name)


class _Equal(_Future):
    """Can be referred to weakly; all are equal, and none is hashable."""

    __slots__ = ("__weakref__",)
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("future", [_Future, _Equal])
def test_any_object_of_an_interceptor_may_be_a_call(
    calls: CallServer, monkeypatch: pytest.MonkeyPatch, future: Any
) -> None:
    """The call begins and ends; closing the handle cancels each that can be referred to weakly."""

    class Wraps(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return future(continuation(client_call_details, request))

    plain = grpc.insecure_channel
    monkeypatch.setattr(
        grpc, "insecure_channel", lambda *args, **kwargs: grpc.intercept_channel(plain(*args, **kwargs), Wraps())
    )
    handle = grpcpool.shared_channel(calls.target)
    handle.open()
    assert handle.unary_unary(UU).future(b"ok", timeout=20).result() == b"0"
    tags = [new_tag() for _ in range(2)]
    held = [handle.unary_unary(UU).future(f"hold:{tag}".encode(), timeout=20) for tag in tags]
    for tag in tags:
        calls.wait_until_held(tag)
    handle.close()
    assert [call.cancelled() for call in held] == [future is _Equal] * 2
    for call in held:
        call.cancel()
