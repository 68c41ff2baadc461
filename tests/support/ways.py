"""The eight ways in which gRPC's four kinds of method are called, and how a call ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import grpc

from support.call_server import SS, SU, US, UU


@dataclasses.dataclass(frozen=True)
class Way:
    """One of the ways to call a method."""

    maker: Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
    how: Literal["__call__", "with_call", "future"]
    method: str

    @property
    def blocks(self) -> bool:
        """Whether the call is over when it returns."""
        return self.how != "future" and not self.streams_out

    @property
    def streams_in(self) -> bool:
        """Whether requests are streamed."""
        return self.maker.startswith("stream")

    @property
    def streams_out(self) -> bool:
        """Whether responses are streamed."""
        return self.maker.endswith("stream")

    def __str__(self) -> str:
        """As tests are named."""
        return self.maker if self.streams_out else f"{self.maker}-{self.how.strip('_')}"

    def begin(
        self,
        channel: grpc.Channel,
        command: str = "ok",
        *,
        serializer: Callable[[Any], bytes] | None = None,
        deserializer: Callable[[bytes], Any] | None = None,
        requests: Iterator[Any] | None = None,
        method: str | None = None,
        **how: Any,
    ) -> Any:
        """Begins a call; returns the call, or its result if it blocks."""
        how.setdefault("timeout", 20)
        request: Any = command.encode()
        if self.streams_in:
            request = iter([request]) if requests is None else requests
        multicallable: Any = getattr(channel, self.maker)(method or self.method, serializer, deserializer)
        return getattr(multicallable, self.how)(request, **how)

    def finish(self, begun: Any) -> Any:
        """The answer of what `begin` returned."""
        if self.blocks:
            return begun
        return list(begun) if self.streams_out else begun.result(30)


WAYS = (
    Way("unary_unary", "__call__", UU),
    Way("unary_unary", "with_call", UU),
    Way("unary_unary", "future", UU),
    Way("unary_stream", "__call__", US),
    Way("stream_unary", "__call__", SU),
    Way("stream_unary", "with_call", SU),
    Way("stream_unary", "future", SU),
    Way("stream_stream", "__call__", SS),
)
NOT_BLOCKING = tuple(way for way in WAYS if not way.blocks)
FUTURES = tuple(way for way in NOT_BLOCKING if way.how == "future")
STREAMS = tuple(way for way in NOT_BLOCKING if way.streams_out)


def outcome_of(work: Callable[[], Any]) -> tuple[Any, ...]:
    """How a call ended, as far as its caller can see."""
    try:
        value = work()
    except grpc.FutureCancelledError:
        return ("cancelled",)
    except grpc.RpcError as raised:
        error: Any = raised
        return ("error", error.code(), error.details())
    except Exception as error:  # noqa: BLE001 -- whatever is raised is what is compared
        return (type(error), str(error))
    if isinstance(value, tuple):
        # The result of with_call.
        response, call = value
        return ("answer", response, call.code(), call.details(), tuple(call.trailing_metadata()))
    return ("answer", value)
