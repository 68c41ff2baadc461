"""What happens to pools in a forked child: they start empty, and what was the parent's is left untouched.

gRPC's channels do not survive a fork, and to close or drop one in the child can hang or crash it. So the child keeps
the parent's drivers where they are, for ever, and gives each pool a new one. The handler runs while the child has one
thread and calls nothing of gRPC.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must know when it is in a forked child."""

    def _after_fork_in_child(self) -> object:
        """Starts empty; returns what has to be kept untouched."""


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()
_parked: list[object] = []


def watch_for_fork(pool: Forkable) -> None:
    """Calls `pool._after_fork_in_child` in every forked child."""
    _alive.add(pool)


def _after_in_child() -> None:
    _parked.extend(pool._after_fork_in_child() for pool in list(_alive))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
