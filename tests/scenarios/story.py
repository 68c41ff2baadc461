"""Reads the stories. A story is data: operations on a pool, step by step, and what must be observed after each.

The files are in `stories`, one for each theme; each [[story]] table is one story. Its entries:

`name`, `truth`
    Its name, and the statement that it shows to be true.
`config`
    Fields of `PoolConfig`, the others at their defaults; or ``classic = [init, cap]``. ``"none"`` is `None`.
`addresses`
    The addresses of the pool's target, found by look-ups; if it is missing, the pool has a factory of its own.
`endpoints`
    How many targets the pool has, in an order of preference; with `addresses`, which are those of the one in use.
`steps`
    A list. Each step is one operation with its arguments (`OPERATIONS`), and what is observed once everything is at
    rest again: `events`, all that listeners get, in any order; `answers`, all that callers get, which is the number of
    the connection or how the call ended; `error`, what the operation itself raises; `stats`, some figures of
    `PoolStats`. What is not written must not happen.
`stats`
    Some figures at the end.
`worlds`, `because`
    The worlds that can play the story, if not all, and the reason. A world is the machine or one of the drivers.

Connections are numbered from 1 in order of dialling. A caller is named by a letter and makes one request. A story must
hold whatever the pool draws at random, such as which of two equal connections it picks or how long a pause is.
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
    # Lease a connection, or `streams` of one, waiting up to `timeout`; release or discard the lease.
    "acquire": ("streams", "timeout"),
    "release": (),
    "discard": (),
    # Make a call on the pool, or `on` a caller's lease, and wait for its end; or only begin it.
    "call": ("timeout", "wait_for_ready", "on"),
    "begin": ("timeout", "wait_for_ready"),
    # The server answers a call that has begun, fails it with a `code`, or refuses its stream.
    "finish": (),
    "fail": ("code",),
    "refuse": (),
    # The caller cancels its request or call.
    "cancel": (),
    # The pool as a whole.
    "open": ("timeout",),
    "close": ("grace",),
    "resize": (),
    "refresh": (),
    # From now on look-ups find these addresses, or fail if that is "nothing".
    "finds": (),
    # Time passes, in seconds.
    "advance": (),
    # The connection with that number is ready, or could not be opened; it goes down, which the pool may notice only
    # when it next uses it; it is up again, which the pool notices within a second. A driver relies for half a second on
    # having seen a connection up, so let that time pass between `down` and a lease.
    "connects": (),
    "fails": (),
    "down": (),
    "up": (),
}
"""The operations and their arguments."""

_NAMED_BY = ("acquire", "call", "begin", "open", "close")
_OBSERVED = ("events", "answers", "error", "stats")
_NONE = "none"


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation, and what must be observed after it."""

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
    addresses: list[str] | None
    endpoints: int
    steps: tuple[Step, ...]
    stats: dict[str, Any]
    worlds: tuple[str, ...]

    @property
    def id(self) -> str:
        """The story's name in the ids of tests."""
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
        ValueError: The entry contains something that is not part of the format.
    """
    where = f"{theme}, {entry.get('name')!r}"
    entry = {"config": {}, "stats": {}, "worlds": WORLDS, "because": None, "addresses": None, "endpoints": 1} | entry
    known = {"name", "truth", "config", "steps", "stats", "worlds", "because", "addresses", "endpoints"}
    if unknown := entry.keys() - known:
        raise ValueError(f"{where}: unknown entries: {unknown}")
    if (entry["worlds"] == WORLDS) != (entry["because"] is None):
        raise ValueError(f"{where}: 'worlds' and 'because' need each other")
    if not set(entry["worlds"]) <= set(WORLDS):
        raise ValueError(f"{where}: the worlds are {WORLDS}")
    steps = tuple(_step(f"{where}, step {number}", step) for number, step in enumerate(entry["steps"], 1))
    callers = [step.subject for step in steps if step.operation in _NAMED_BY]
    if len(callers) != len(set(callers)):
        raise ValueError(f"{where}: two callers have the same name: {callers}")
    return Story(
        theme=theme,
        name=entry["name"],
        truth=entry["truth"],
        config=_config(entry["config"]),
        addresses=entry["addresses"],
        endpoints=entry["endpoints"],
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
    if unknown := entry.keys() - {operation, *OPERATIONS[operation], *_OBSERVED}:
        raise ValueError(f"{where}: {operation} does not take {unknown}")
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
