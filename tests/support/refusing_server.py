"""The refusing server as tests see it: a process that refuses by a rule, and reports what it counted."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from support.refusing_counts import Count
from support.servers import ServerProcess


@dataclasses.dataclass(frozen=True)
class Report:
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


class RefusingServer(ServerProcess):
    """A server that refuses streams by a rule.

    It serves any service with methods named ``Uu``, ``Us``, ``Su`` and ``Ss``, one of each kind. Their first request
    says what they do: ``ok`` answers ``0`` (a stream: ``0``, ``1``, ``2``) with metadata before and after; ``count:n``
    answers n messages; ``hold:tag`` answers ``1`` when it is let go (a stream sends ``0`` at once); ``work:ms`` answers
    after that time (``work:ms,x`` for any x); ``metadata`` answers the headers; ``unavailable:details`` fails with
    these details; ``reset:code`` resets the stream, ``late:code`` after it has answered ``0`` and ``resets`` are let
    go; anything else is echoed.
    """

    script = pathlib.Path(__file__).with_name("refusing_server_script.py")

    def begin(self, **rule: Any) -> None:
        """Refuses by this rule from now on, and restarts the counts; see `refusing_server_script.Rule`."""
        self._do(f"begin {json.dumps(rule)}")

    def refuse(self, **rule: Any) -> None:
        """Refuses by this rule from now on."""
        self._do(f"rule {json.dumps(rule)}")

    def let_go(self, tag: str) -> None:
        """Ends the calls ``hold:tag``, including later ones."""
        self._do(f"let_go {tag}")

    def report(self) -> Report:
        """What was counted."""
        report = self._do("report")
        counts = {peer: Count(**count) for peer, count in report["counts"].items()}
        return Report(counts, report["handled"], report["held"])

    def _do(self, line: str) -> Any:
        commands, answers = self.process.stdin, self.process.stdout
        commands.write(line + "\n")
        commands.flush()
        answer = answers.readline()
        assert answer, "the server has ended"
        return json.loads(answer)
