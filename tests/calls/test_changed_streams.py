"""Streams that an interceptor in the channels has replaced by an object of its own: read as without a pool."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from support.call_server import US, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest

pytestmark = pytest.mark.timeout(60)


class _Passing:
    """Passes on what it does not have."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Iterator(_Passing):
    """Changes each response."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._call) + b"!"


class _Iterable(_Passing):
    """The same, but only iterable."""

    def __iter__(self) -> Any:
        for response in self._call:
            yield response + b"!"


def _generator(call: Any) -> Iterator[bytes]:
    """The same, and nothing of a call."""
    return (response + b"!" for response in call)


class _Changes(grpc.UnaryStreamClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]  # the stubs' is generic
    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._change(continuation(client_call_details, request))


@pytest.mark.parametrize("opened", [True, False], ids=["with a place", "waits"])
@pytest.mark.parametrize("change", [_Iterator, _Iterable, _generator])
def test_they_are_read_through_it(calls: CallServer, make_pool: PoolMaker, change: Any, *, opened: bool) -> None:
    """All responses, also if the call has waited for a place."""
    pool = make_pool(lambda: grpc.intercept_channel(calls.channel(), _Changes(change)), max_size=1)
    if opened:
        pool.open()
    method: Any = pool.unary_stream(US)
    assert list(method(b"ok", timeout=20)) == [b"0!", b"1!", b"2!"]
    assert_at_rest(pool)


@pytest.mark.parametrize("opened", [True, False], ids=["with a place", "waits"])
@pytest.mark.parametrize("change", [_Iterator, _Iterable, _generator])
def test_they_end_when_they_are_dropped(
    calls: CallServer, make_pool: PoolMaker, change: Any, caplog: pytest.LogCaptureFixture, *, opened: bool
) -> None:
    """And the names of their attributes are not taken for gRPC's."""
    pool = make_pool(lambda: grpc.intercept_channel(calls.channel(), _Changes(change)), max_size=1)
    if opened:
        pool.open()
    method: Any = pool.unary_stream(US)
    tag = new_tag()
    responses = iter(method(f"hold:{tag}".encode(), timeout=20))
    assert next(responses) == b"0!"
    del responses
    gc.collect()
    calls.wait_until_let_go(tag)
    assert_at_rest(pool)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
