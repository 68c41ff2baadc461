"""Plays a story in a world, and compares what is observed after each step with what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from grpcpool import PoolStats

from .log import Log
from .story import Step, Story

_REQUESTS = ("acquire", "call", "begin", "refuse")


class Player(Protocol):
    """A world: performs a story's operations on a pool, and logs what is observed.

    Each of `story.OPERATIONS` is a method that does not block. An operation that would block runs in the background,
    and its end is logged.
    """

    def stats(self) -> PoolStats:
        """The pool's own snapshot."""

    def connections(self) -> int:
        """The number of connections, counted from outside."""

    def settle(self, condition: Callable[[], bool]) -> None:
        """Lets the world come to rest; returns when `condition` holds, or when it no longer can."""

    def end(self) -> None:
        """Closes the pool and releases what is still held; nothing of the pool is left."""


class StoryRun:
    """One run of a story."""

    def __init__(self, story: Story, player: Player, log: Log) -> None:
        """Prepares the run; nothing has been played yet."""
        self._story = story
        self._player = player
        self._log = log
        # Callers that have made a request and have no answer yet.
        self._waiting: set[str] = set()

    def play(self) -> None:
        """Plays all steps, then ends the pool and checks that nothing is left.

        Raises:
            AssertionError: Something was observed that is not what is written.
        """
        try:
            for number, step in enumerate(self._story.steps, 1):
                self._play(step, f"step {number}, {step}")
            self._expect_figures(self._story.stats, "at the end")
        except BaseException:
            # What a failed story leaves behind must not disturb other tests.
            with contextlib.suppress(Exception):
                self._player.end()
            raise
        self._end()

    def _play(self, step: Step, where: str) -> None:
        error = self._do(step)
        if step.operation in _REQUESTS and step.arguments.get("on") is None:
            self._waiting.add(step.subject)
        self._waiting -= step.answers.keys()
        written = (step.events, sorted(step.answers.items(), key=str), step.error)
        self._player.settle(lambda: (*self._log.recorded(), error) == written and not self._differs(step.stats))
        seen = (*self._log.recorded(), error)
        assert seen == written, f"{where}\n seen:    {seen}\n written: {written}"
        self._expect_figures(step.stats, where)
        self._log.clear()

    def _do(self, step: Step) -> str | None:
        try:
            getattr(self._player, step.operation)(step.subject, **step.arguments)
        except ValueError as error:
            return type(error).__name__
        return None

    def _end(self) -> None:
        """After any story, closing the pool answers all waiters and leaves nothing open."""
        self._player.end()
        events, answers = self._log.recorded()
        assert [event for event in events if not event.startswith(("closed ", "draining "))] == []
        refused = [caller for caller, what in answers if "PoolClosedError" in str(what)]
        assert refused == sorted(self._waiting), "waiters at the end"
        stats = self._player.stats()
        left = (stats.size, stats.in_flight, stats.waiting, self._player.connections())
        assert left == (0, 0, 0, 0), "size, in flight, waiting, connections after the end"

    def _expect_figures(self, figures: dict[str, Any], where: str) -> None:
        if differences := self._differs(figures):
            raise AssertionError(f"{where}: {differences}")

    def _differs(self, figures: dict[str, Any]) -> dict[str, str]:
        """The figures that differ from those given, or from what always holds."""
        stats = self._player.stats()
        closed = {reason: number for reason, number in stats.closed.items() if number}
        found = {name: closed if name == "closed" else getattr(stats, name) for name in figures}
        found |= {"waiting": stats.waiting, "connections": self._player.connections()}
        wanted = {"waiting": len(self._waiting), "connections": stats.size, **figures}
        return {name: f"{found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]}
