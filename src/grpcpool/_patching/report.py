"""What a patch has reached, and what it has not."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Made(NamedTuple):
    """Channels to one target that were created under the patch.

    Attributes:
        target: As it was given.
        pooled: Whether they are pools, or handles on one.
        number: How many there were.
    """

    target: str
    pooled: bool
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class PatchReport:
    """What `patched` has reached. As text, it is readable.

    Attributes:
        replaced: The names that stand for the pool's constructors now, such as ``"grpc.insecure_channel"``.
        channels: The channels that were created, by target. At most 1,000 targets are listed.
        plain: Where modules hold a constructor of gRPC's that cannot be replaced: classes and functions with it among
            their attributes or defaults. Channels that were created before the patch are not known.
    """

    replaced: tuple[str, ...]
    channels: tuple[Made, ...]
    plain: tuple[str, ...]

    def __str__(self) -> str:
        """Several lines, for a terminal or a log."""
        made = (f"{each.target}: {each.number} {'pooled' if each.pooled else 'plain'}" for each in self.channels)
        parts = {"replaced": self.replaced, "channels": tuple(made), "still plain": self.plain}
        lines = (f"{title}:" + "".join(f"\n  {line}" for line in found or ("none",)) for title, found in parts.items())
        return "\n".join(lines)
