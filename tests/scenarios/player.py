"""Plays a story in a world, and looks at each step whether what is seen is what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from grpcpool import PoolStats

from .log import Log
from .story import Step, Story

_ASKS = ("acquire", "call", "begin", "refuse")


class Player(Protocol):
    """A world: does with a pool what stories tell, and logs what is seen of it.

    Each of `story.OPERATIONS` is a method, which does not block: what does is done in the background, and the log is
    told how it ended.
    """

    def stats(self) -> PoolStats:
        """The pool's own figures."""

    def connections(self) -> int:
        """How many connections there are, counted from outside."""

    def settle(self, is_so: Callable[[], bool]) -> None:
        """Lets the world come to rest; returns when `is_so`, or when there is no more hope."""

    def end(self) -> None:
        """Closes the pool, and gives back what is still held; nothing of it is left."""


class Telling:
    """A story as it is being played."""

    def __init__(self, story: Story, player: Player, log: Log) -> None:
        """Has played nothing yet."""
        self._story = story
        self._player = player
        self._log = log
        # Those who asked for a place and have no answer yet.
        self._waiting: set[str] = set()

    def play(self) -> None:
        """Plays it to its end and beyond.

        Raises:
            AssertionError: Something else was seen than is written.
        """
        try:
            for number, step in enumerate(self._story.steps, 1):
                self._play(step, f"step {number}, {step}")
            self._expect_figures(self._story.stats, "in the end")
        except BaseException:
            # What a story leaves behind that failed is not to trouble others.
            with contextlib.suppress(Exception):
                self._player.end()
            raise
        self._end()

    def _play(self, step: Step, where: str) -> None:
        error = self._do(step)
        if step.operation in _ASKS and step.arguments.get("on") is None:
            self._waiting.add(step.subject)
        self._waiting -= step.answers.keys()
        written = (step.events, sorted(step.answers.items(), key=str), step.error)
        self._player.settle(lambda: (*self._log.heard(), error) == written and not self._differs(step.stats))
        seen = (*self._log.heard(), error)
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
        """Whatever the story, a pool that is closed answers who waits and leaves nothing open."""
        self._player.end()
        events, answers = self._log.heard()
        assert [event for event in events if not event.startswith(("closed ", "draining "))] == []
        refused = [who for who, what in answers if "PoolClosedError" in str(what)]
        assert refused == sorted(self._waiting), "those who wait in the end"
        stats = self._player.stats()
        left = (stats.size, stats.in_flight, stats.waiting, self._player.connections())
        assert left == (0, 0, 0, 0), "size, in flight, waiting, connections after the end"

    def _expect_figures(self, figures: dict[str, Any], where: str) -> None:
        if differences := self._differs(figures):
            raise AssertionError(f"{where}: {differences}")

    def _differs(self, figures: dict[str, Any]) -> dict[str, str]:
        """Where the pool's figures are not those given, nor what they must be at any time."""
        stats = self._player.stats()
        closed = {reason: number for reason, number in stats.closed.items() if number}
        found = {name: closed if name == "closed" else getattr(stats, name) for name in figures}
        found |= {"waiting": stats.waiting, "connections": self._player.connections()}
        wanted = {"waiting": len(self._waiting), "connections": stats.size, **figures}
        return {name: f"{found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]}
