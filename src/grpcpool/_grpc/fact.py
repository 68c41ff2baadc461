"""What a row of `facts.py` is."""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["private name", "offered name", "code", "message", "release"]
"""What a fact is about: a name that the pool reads, a name that the pool's own objects have because gRPC or its clients
read it, code that is run with changes, a text that is parsed, a difference between releases."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One fact about gRPC.

    Attributes:
        name: The attribute, module, text or behaviour.
        kind: See `Kind`.
        since: The first release that has it; 1.60 stands for the oldest that is supported.
        why: What the pool needs it for.
        fallback: What happens without it, as a sentence that can stand in a log.
        test: The node id of the test that takes it away, or states it.
    """

    name: str
    kind: Kind
    since: str
    why: str
    fallback: str
    test: str

    @property
    def word(self) -> str:
        """The identifier as code spells it, without what it belongs to."""
        return self.name.rpartition(".")[2]
