"""Calls that go on although nothing else holds them: the loop does, until they are over or it ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any, Self

# Seconds for which a timer is set that only holds something. asyncio waits for a day at most.
_DAY = 86_400.0


class Kept(dict[Any, Any]):
    """The calls of one pool, by their stages."""

    __slots__ = ("__weakref__",)

    @classmethod
    def by(cls, loop: asyncio.AbstractEventLoop) -> Self:
        """The loop holds them until it is closed, or until a day has passed in which there are none."""
        kept = cls()
        _hold(loop, kept)
        return kept


def _hold(loop: asyncio.AbstractEventLoop, kept: Kept) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_later(_DAY, _hold_on, loop, kept, context=contextvars.Context())


def _hold_on(loop: asyncio.AbstractEventLoop, kept: Kept) -> None:
    if kept:
        _hold(loop, kept)
