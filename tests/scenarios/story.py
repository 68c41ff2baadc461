"""Reads the stories. A story is data: what is done to a pool, step by step, and what must be seen of it each time.

The files are in `stories`, one for each theme; [[story]] begins one. Its entries:

`name`, `truth`
    What it is called, and the sentence that it shows to be true.
`config`
    Fields of `PoolConfig`, the others at their defaults; or ``classic = [init, cap]``. ``"none"`` is `None`.
`steps`
    A list. Each step is one operation with its arguments (`OPERATIONS`), and what is seen when all is quiet again:
    `events`, all that listeners are told, in any order; `answers`, all that somebody is told: the number of the
    connection that he got, or how it ended for him; `error`, what the operation itself raises; `stats`, some figures
    of `PoolStats`. What is not written does not happen.
`stats`
    Some figures in the end.
`worlds`, `because`
    The worlds in which it can be told, if not all, and the reason.

A connection's number counts from 1 in the order of dialling. Whoever asks for something is called by a letter, and asks
once. Chance has no part in a story: where the pool throws dice (which of two equal connections, how long a pause), what
is written must be so whatever they show.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from grpcpool import Mode, PoolConfig

FOLDER = pathlib.Path(__file__).parent / "stories"
WORLDS = ("machine", "sync", "aio")

OPERATIONS: dict[str, tuple[str, ...]] = {
    # Somebody leases a connection, or `streams` of one, and waits up to `timeout` for it; gives it back, either way.
    "acquire": ("streams", "timeout"),
    "release": (),
    "discard": (),
    # Somebody makes a call, `on` somebody's lease or on the pool, and waits for its end; or only begins it.
    "call": ("timeout", "wait_for_ready", "on"),
    "begin": ("timeout", "wait_for_ready"),
    # The server answers a call that has begun, fails it with a `code`, or refuses its stream.
    "finish": (),
    "fail": ("code",),
    "refuse": (),
    # Whoever asked gives up.
    "cancel": (),
    # The pool as a whole.
    "open": ("timeout",),
    "close": ("grace",),
    "resize": (),
    "refresh": (),
    # Time passes, in seconds.
    "advance": (),
    # The connection of that number is made, or cannot be made; goes down, which the pool notices when it next has to do
    # with it, or before; comes up again, which the pool has noticed a second later. A driver trusts for half a second
    # what it has seen to be up, so let that pass between `down` and a lease.
    "connects": (),
    "fails": (),
    "down": (),
    "up": (),
}
"""The operations and their arguments."""

_INTRODUCED_BY = ("acquire", "call", "begin", "open", "close")
_SEEN = ("events", "answers", "error", "stats")
_NONE = "none"


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation, and what must be seen of it."""

    operation: str
    subject: Any
    arguments: Mapping[str, Any]
    events: list[str]
    answers: dict[str, int | str]
    error: str | None
    stats: dict[str, Any]

    def __str__(self) -> str:
        """The operation as it is written."""
        return ", ".join(
            f"{key} = {value!r}" for key, value in {self.operation: self.subject, **self.arguments}.items()
        )


@dataclasses.dataclass(frozen=True)
class Story:
    """A story, read and checked."""

    theme: str
    name: str
    truth: str
    config: PoolConfig
    steps: tuple[Step, ...]
    stats: dict[str, Any]
    worlds: tuple[str, ...]

    @property
    def id(self) -> str:
        """What the story goes by among tests."""
        return f"{self.theme}-{self.name.replace(' ', '-')}"


def read_stories() -> list[Story]:
    """All stories, in the order in which they are written."""
    return [
        story_of(path.stem, entry)
        for path in sorted(FOLDER.glob("*.toml"))
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["story"]
    ]


def story_of(theme: str, entry: dict[str, Any]) -> Story:
    """Reads one story.

    Raises:
        ValueError: There is something in it that no story has.
    """
    where = f"{theme}, {entry.get('name')!r}"
    entry = {"config": {}, "stats": {}, "worlds": WORLDS, "because": None} | entry
    if unknown := entry.keys() - {"name", "truth", "config", "steps", "stats", "worlds", "because"}:
        raise ValueError(f"{where}: there is no {unknown}")
    if (entry["worlds"] == WORLDS) != (entry["because"] is None):
        raise ValueError(f"{where}: 'worlds' and 'because' come together")
    if not set(entry["worlds"]) <= set(WORLDS):
        raise ValueError(f"{where}: the worlds are {WORLDS}")
    steps = tuple(_step(f"{where}, step {number}", step) for number, step in enumerate(entry["steps"], 1))
    people = [step.subject for step in steps if step.operation in _INTRODUCED_BY]
    if len(people) != len(set(people)):
        raise ValueError(f"{where}: two have the same name: {people}")
    return Story(
        theme=theme,
        name=entry["name"],
        truth=entry["truth"],
        config=_config(entry["config"]),
        steps=steps,
        stats=entry["stats"],
        worlds=tuple(entry["worlds"]),
    )


def _config(entry: dict[str, Any]) -> PoolConfig:
    if "classic" in entry:
        init, cap = entry["classic"]
        return PoolConfig.classic(init, cap)
    fields = {field: _value(value) for field, value in entry.items()}
    if "mode" in fields:
        fields["mode"] = Mode(fields["mode"])
    return PoolConfig(**fields)


def _step(where: str, entry: dict[str, Any]) -> Step:
    operations = [key for key in entry if key in OPERATIONS]
    if len(operations) != 1:
        raise ValueError(f"{where}: has {len(operations)} operations: {entry}")
    (operation,) = operations
    if unknown := entry.keys() - {operation, *OPERATIONS[operation], *_SEEN}:
        raise ValueError(f"{where}: {operation} has no {unknown}")
    return Step(
        operation=operation,
        subject=entry[operation],
        arguments={key: _value(entry[key]) for key in OPERATIONS[operation] if key in entry},
        events=sorted(entry.get("events", ())),
        answers=entry.get("answers", {}),
        error=entry.get("error"),
        stats=entry.get("stats", {}),
    )


def _value(value: Any) -> Any:
    return None if value == _NONE else value
