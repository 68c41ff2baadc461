"""Calls that go on although nothing else holds them: the loop does, until they are over or it ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import weakref
from typing import Any, Self

# Seconds for which a timer is set that only holds something. asyncio waits for a day at most.
_DAY = 86_400.0


class Kept(dict[Any, Any]):
    """The calls of one pool, by their stages."""

    __slots__ = ("__weakref__", "_timer")

    @classmethod
    def by(cls, loop: asyncio.AbstractEventLoop) -> Self:
        """The loop holds them until it is closed, they are let go, or a day has passed in which there are none."""
        kept = cls()
        kept._hold(loop)
        return kept

    def _hold(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not the timer itself, which holds this: they would be a cycle when the loop has been closed.
        self._timer: weakref.ref[asyncio.TimerHandle] | None = None
        # A loop that is closed takes no timer, and the timers of an unknown loop may not allow weak references.
        with contextlib.suppress(RuntimeError, TypeError):
            self._timer = weakref.ref(loop.call_later(_DAY, _hold_on, loop, self, context=contextvars.Context()))

    def let_go_if_empty(self) -> None:
        """The pool is closed. If it has no such call, the loop holds this no longer."""
        timer = None if self or self._timer is None else self._timer()
        if timer is not None:
            timer.cancel()


def _hold_on(loop: asyncio.AbstractEventLoop, kept: Kept) -> None:
    if kept:
        kept._hold(loop)
