"""The ways to make a call with one request from a thread, and to take its outcome."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import grpc

from support.waiting import LONG, eventually

UU, US = "/refusals.Test/Uu", "/refusals.Test/Us"


@dataclasses.dataclass(frozen=True)
class Use:
    """One of the ways.

    Attributes:
        name: The name in test ids.
        maker: The channel's method that makes the multicallable.
        take: Makes the call by a multicallable and its arguments, and returns what its caller sees.
        command: The request.
        single_threaded: Whether the channel has the option `SingleThreadedUnaryStream`.
    """

    name: str
    maker: Literal["unary_unary", "unary_stream"]
    take: Callable[..., Any]
    command: str = "ok"
    single_threaded: bool = False

    def __str__(self) -> str:
        """As tests are named."""
        return self.name

    def whole(self, channel: grpc.Channel, **how: Any) -> Any:
        """Makes a call from start to end; returns what its caller sees."""
        how.setdefault("timeout", LONG)
        method = UU if self.maker == "unary_unary" else US
        multicallable: Any = getattr(channel, self.maker)(method)
        return self.take(multicallable, self.command.encode(), **how)


def _call(multicallable: Any, request: bytes, **how: Any) -> Any:
    return multicallable(request, **how)


def _with_call(multicallable: Any, request: bytes, **how: Any) -> Any:
    response, call = multicallable.with_call(request, **how)
    return response, call.code(), call.details(), tuple(call.initial_metadata()), tuple(call.trailing_metadata())


def _result(multicallable: Any, request: bytes, **how: Any) -> Any:
    return multicallable.future(request, **how).result(LONG)


def _asked_first(*names: str) -> Callable[..., Any]:
    """Asks the call for these, in this order, before its result is awaited."""

    def take(multicallable: Any, request: bytes, **how: Any) -> Any:
        call = multicallable.future(request, **how)
        answers = [getattr(call, name)() for name in names]
        return [*map(comparable, answers), call.result(LONG)]

    return take


def comparable(answer: Any) -> Any:
    """What of an answer can be compared: gRPC's texts contain times, its metadata is a tuple of its own kind."""
    return answer if isinstance(answer, grpc.StatusCode | str | None) else tuple(answer)


def _polled(name: str, until: object) -> Callable[..., Any]:
    """Polls the call until `name` returns `until`, and then asks for all else."""

    def take(multicallable: Any, request: bytes, **how: Any) -> Any:
        call = multicallable.future(request, **how)
        eventually(lambda: getattr(call, name)() is until, pause=0.0001)
        return call.code(), call.result(0), call.exception(0), call.done(), call.running(), call.is_active()

    return take


def _done_callback(multicallable: Any, request: bytes, **how: Any) -> Any:
    told: list[Any] = []
    called = threading.Event()

    def tell(call: Any) -> None:
        told.append((call.done(), call.code(), call.result(0)))
        called.set()

    multicallable.future(request, **how).add_done_callback(tell)
    assert called.wait(LONG)
    return told


def _callback(multicallable: Any, request: bytes, **how: Any) -> Any:
    told: list[Any] = []
    called = threading.Event()
    call = multicallable.future(request, **how)

    def tell() -> None:
        told.append((call.done(), call.code(), call.result(0)))
        called.set()

    assert call.add_callback(tell) or call.done()
    if call.done():
        # It had ended before the callback was added.
        return told or [(True, call.code(), call.result(0))]
    assert called.wait(LONG)
    return told


def _listed(multicallable: Any, request: bytes, **how: Any) -> Any:
    call = multicallable(request, **how)
    messages = list(call)
    return messages, call.code(), tuple(call.trailing_metadata())


def _one_by_one(multicallable: Any, request: bytes, **how: Any) -> Any:
    call = multicallable(request, **how)
    return [next(call), call.next(), next(call), next(call, "no more")]


def _metadata_first(multicallable: Any, request: bytes, **how: Any) -> Any:
    call = multicallable(request, **how)
    return tuple(call.initial_metadata()), list(call)


def _left_alone_first(multicallable: Any, request: bytes, **how: Any) -> Any:
    # Long enough for a refusal to arrive, and for the call to be sent again.
    call = multicallable(request, **how)
    time.sleep(0.05)
    return list(call)


def _code_first(multicallable: Any, request: bytes, **how: Any) -> Any:
    call = multicallable(request, **how)
    return call.code(), call.details(), list(call)


def _stream_callback(multicallable: Any, request: bytes, **how: Any) -> Any:
    told: list[Any] = []
    call = multicallable(request, **how)
    call.add_done_callback(lambda call: told.append(call.code()))
    messages = list(call)
    eventually(lambda: told)
    return messages, told


BLOCKING = (
    Use("call", "unary_unary", _call),
    Use("with_call", "unary_unary", _with_call),
)
FUTURES = (
    Use("result", "unary_unary", _result),
    Use("exception_first", "unary_unary", _asked_first("exception")),
    Use("traceback_first", "unary_unary", _asked_first("traceback")),
    Use("code_first", "unary_unary", _asked_first("code")),
    Use("details_first", "unary_unary", _asked_first("details")),
    Use("initial_metadata_first", "unary_unary", _asked_first("initial_metadata", "code")),
    Use("trailing_metadata_first", "unary_unary", _asked_first("trailing_metadata")),
    Use("done_polled", "unary_unary", _polled("done", until=True)),
    Use("running_polled", "unary_unary", _polled("running", until=False)),
    Use("is_active_polled", "unary_unary", _polled("is_active", until=False)),
    Use("done_callback", "unary_unary", _done_callback),
    Use("callback", "unary_unary", _callback),
)
STREAMS = (
    Use("iterated", "unary_stream", _listed),
    Use("one_by_one", "unary_stream", _one_by_one),
    Use("stream_metadata_first", "unary_stream", _metadata_first),
    Use("stream_left_alone_first", "unary_stream", _left_alone_first),
    Use("stream_code_first", "unary_stream", _code_first, "count:0"),
    Use("stream_done_callback", "unary_stream", _stream_callback),
    Use("single_threaded_iterated", "unary_stream", _listed, single_threaded=True),
    Use("single_threaded_one_by_one", "unary_stream", _one_by_one, single_threaded=True),
    Use("single_threaded_metadata_first", "unary_stream", _metadata_first, single_threaded=True),
    Use("single_threaded_left_alone_first", "unary_stream", _left_alone_first, single_threaded=True),
    Use("single_threaded_done_callback", "unary_stream", _stream_callback, single_threaded=True),
)
USES = (*BLOCKING, *FUTURES, *STREAMS)
"""All of them."""
