"""The server of these tests, and the eight ways in which gRPC's four kinds of method are called."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import grpc

from grpcpool import ChannelPool
from support.servers import Server
from support.waiting import eventually

_HERE = pathlib.Path(__file__).parent
CERTIFICATE = _HERE / "certs" / "localhost"

UU, US, SU, SS = (f"/calls.Test/{name}" for name in ("Uu", "Us", "Su", "Ss"))

_tags = itertools.count(1)


class CallServer(Server):
    """One server process with four methods, which do what the request says; a streamed request, what its first says.

    ``ok`` answers ``0`` (a stream: ``0``, ``1``, ``2``) with metadata before and after; ``fail`` fails
    ``PERMISSION_DENIED``; ``hold:tag`` runs until the call is over for other reasons (a stream sends ``0`` first);
    ``left`` tells the time remaining; ``note:text`` writes down; ``work:ms`` takes as long and counts; ``metadata``
    and ``peer`` tell what the server sees; anything else is echoed.
    """

    script = _HERE / "support_script.py"

    def __init__(self, *arguments: str) -> None:
        """Does not start it yet; `arguments` are the script's."""
        super().__init__()
        self.arguments = arguments

    def tell(self, what: Literal["held", "notes", "most"]) -> Any:
        """The tags of calls that are held; what was written down, or the most calls by connection, since last asked."""
        with self.channel() as channel:
            ask: Any = channel.unary_unary("/calls.Test/Tell")
            return json.loads(ask(what.encode(), timeout=20))

    def wait_until_held(self, tag: str) -> None:
        """Returns when a call ``hold:tag`` runs."""
        with self.channel() as channel:
            ask: Any = channel.unary_unary("/calls.Test/Tell")
            eventually(lambda: tag in json.loads(ask(b"held", timeout=20)))

    def wait_until_let_go(self, tag: str) -> None:
        """Returns when no call ``hold:tag`` runs."""
        with self.channel() as channel:
            ask: Any = channel.unary_unary("/calls.Test/Tell")
            eventually(lambda: tag not in json.loads(ask(b"held", timeout=20)))


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
        """Begins a call; returns the call, or what it returned if it blocks."""
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


def new_tag() -> str:
    """A name for a held call, unlike all others."""
    return f"call-{next(_tags)}"


def outcome_of(work: Callable[[], Any]) -> tuple[Any, ...]:
    """How a call ended, as far as its caller can tell."""
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
        # What with_call returned.
        response, call = value
        return ("answer", response, call.code(), call.details(), tuple(call.trailing_metadata()))
    return ("answer", value)


def assert_at_rest(pool: ChannelPool) -> None:
    """The pool carries nothing, and nobody waits; what was dropped has been collected."""
    gc.collect()
    eventually(lambda: pool.stats().in_flight == 0, timeout=5)
    stats = pool.stats()
    assert stats.waiting == 0
    assert 0 <= stats.size <= stats.max_size
    assert all(channel.in_flight == 0 for channel in stats.channels)
