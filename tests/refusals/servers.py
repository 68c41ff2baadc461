"""The refusing server as tests see it: a process that is told whom to refuse, and that says what it counted."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import grpc

from grpcpool import isolated
from support.servers import Server


@dataclasses.dataclass(frozen=True)
class Count:
    """What became of streams: of one connection, or of all together (`most`: the most on any one).

    Attributes:
        begun: All that came.
        refused: Those refused.
        completed: Those that the server ended.
        cancelled: Those that the client ended.
        open: Those that run.
        most: The most that ran at once.
    """

    begun: int = 0
    refused: int = 0
    completed: int = 0
    cancelled: int = 0
    open: int = 0
    most: int = 0


@dataclasses.dataclass(frozen=True)
class Told:
    """What the server has counted since its last `begin`.

    Attributes:
        counts: What became of the streams of each connection, by the client's address.
        handled: How often each command was carried out.
        held: The tags of the calls that are held.
    """

    counts: dict[str, Count]
    handled: dict[str, int]
    held: list[str]

    @property
    def all(self) -> Count:
        """All connections together."""
        each = [dataclasses.asdict(count) for count in self.counts.values()]
        summed = {name: sum(count[name] for count in each) for name in dataclasses.asdict(Count())}
        return Count(**{**summed, "most": max((count["most"] for count in each), default=0)})


class RefusingServer(Server):
    """A server that refuses streams by a rule.

    It serves any service with methods named ``Uu``, ``Us``, ``Su`` and ``Ss``, one of each kind. Their first request
    says what they do: ``ok`` answers ``0`` (a stream: ``0``, ``1``, ``2``) with metadata before and after;
    ``count:n`` answers n messages; ``hold:tag`` answers ``1`` when it is let go (a stream sends ``0`` at once);
    ``work:ms`` answers after so long (``work:ms,x`` for an x of one's own); ``metadata`` tells the headers;
    ``unavailable:details`` fails like that, ``answered:details`` after metadata; ``reset:code`` has the stream reset,
    ``answered_reset:code`` after metadata, ``late:code`` when it has answered ``0`` and ``resets`` are let go;
    anything else is echoed.
    """

    script = pathlib.Path(__file__).with_name("server_script.py")

    def __init__(self, *arguments: str) -> None:
        """Does not start it yet; `arguments` are the script's."""
        super().__init__()
        self.arguments = arguments

    def begin(self, **rule: Any) -> None:
        """Refuses by this rule from here on, and counts anew; see `server_script.Rule`."""
        self._do(f"begin {json.dumps(rule)}")

    def refuse(self, **rule: Any) -> None:
        """Refuses by this rule from here on."""
        self._do(f"rule {json.dumps(rule)}")

    def let_go(self, tag: str) -> None:
        """Has the calls ``hold:tag`` end, those to come included."""
        self._do(f"let_go {tag}")

    def told(self) -> Told:
        """What was counted."""
        told = self._do("tell")
        counts = {peer: Count(**count) for peer, count in told["counts"].items()}
        return Told(counts, told["handled"], told["held"])

    def aio_channel(self) -> grpc.aio.Channel:
        """A factory for asyncio pools: as `channel`."""
        return grpc.aio.insecure_channel(self.target, isolated())

    def _do(self, line: str) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said, "the server has ended"
        return json.loads(said)
