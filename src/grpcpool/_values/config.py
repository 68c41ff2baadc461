"""How a pool is to behave: every knob, checked where it is set.

A configuration that exists is valid: wrong and contradictory values, and knobs that would have no effect, are
refused with a `ValueError` that names the field, its value and the rule; if there are several, all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self, get_args

PickerName = Literal["least_loaded", "round_robin", "fill"]

_DEFAULT_OVERFLOW = 10
_DEFAULT_JITTER = 0.1


class Mode(enum.Enum):
    """What a pool does at `PoolConfig.max_size` when one more connection is asked for."""

    STRICT = "strict"
    """Waits until a place is free."""
    LOOSE = "loose"
    """Opens an extra connection at once, and closes it when it comes back."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """The settings of a pool. Durations are seconds.

    Attributes:
        min_size: Connections kept open, however idle. 0 keeps none.
        max_size: Connections at most. A connection that is being replaced and its successor hold one place, and one
            that only waits for its last calls to end (draining) holds none.
        target_streams: Calls per connection beyond which the pool grows ahead of need. `None`: 5/9 of
            `max_streams`, rounded up, which is 50 of the default 90.
        max_streams: Calls per connection, never more. Keep it under the server's limit, usually 100: a Python
            server refuses calls near its limit (it counts streams it has not cleaned up yet).
        mode: What happens at `max_size`, see `Mode`.
        max_overflow: Extra connections that `Mode.LOOSE` may have open; at that bound it waits like `STRICT`.
        acquire_timeout: How long an acquire, or a call without a deadline of its own, may wait for a place.
            `None` waits for ever.
        max_waiters: Waiters beyond which an acquire fails at once. `None`: no bound.
        idle_timeout: How long a connection above `min_size` may be unused before it is closed. `None`: for ever.
        max_age: Age at which a connection is replaced, gracefully. `None`: never.
        age_jitter: Fraction of `max_age` taken off at random, drawn once per connection, so that connections
            made together are not replaced together.
        connect_timeout: How long one connection may take to become ready, `prime` included.
        drain_timeout: How long a retiring connection may wait for its calls before they are cancelled.
        close_grace: Default of `close(grace)`. 0 cancels at once, as gRPC's own `close()` does.
        picker: Which connection serves the next call: the one with the fewest calls (`least_loaded`), each in
            turn (`round_robin`), or the fullest below `target_streams`, so that few are in use (`fill`).
        prime: Called with each fresh channel before it is used, for instance to make one cheap call. What it
            raises fails the connection. In `grpcpool.aio` it may be a coroutine function.
        leak_threshold: How long a lease may be held before it is reported, once, with the stack that took it.

    Raises:
        ValueError: A value is wrong or contradicts another; names field, value and rule.
    """

    min_size: int = 1
    max_size: int = 10
    target_streams: int | None = None
    max_streams: int = 90
    mode: Mode = Mode.STRICT
    max_overflow: int = _DEFAULT_OVERFLOW
    acquire_timeout: float | None = 30.0
    max_waiters: int | None = 1000
    idle_timeout: float | None = 600.0
    max_age: float | None = None
    age_jitter: float = _DEFAULT_JITTER
    connect_timeout: float = 10.0
    drain_timeout: float = 600.0
    close_grace: float = 0.0
    picker: PickerName = "least_loaded"
    # The channel's type differs between grpc and grpc.aio, and so does what the callable returns.
    prime: Callable[[Any], Any] | None = None
    leak_threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuses what is wrong, all of it at once."""
        refuse(faults({field: getattr(self, field) for field in _RULES}))

    @property
    def resolved_target_streams(self) -> int:
        """`target_streams`, or what `None` stands for."""
        if self.target_streams is not None:
            return self.target_streams
        return target_of(self.max_streams)

    @classmethod
    def classic(cls, init: int, cap: int) -> Self:
        """The presets of the Go pool this project grew out of.

        Args:
            init: Connections opened by `open()` and kept (`min_size`).
            cap: Connections at most (`max_size`), beyond which `LOOSE` opens extra ones.

        Returns:
            A configuration that closes idle connections after 10 s, replaces them after 60 s and gives calls
            10 s at `close()`.
        """
        return cls(
            min_size=init,
            max_size=cap,
            idle_timeout=10.0,
            max_age=60.0,
            age_jitter=0.0,
            close_grace=10.0,
            mode=Mode.LOOSE,
        )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """A configuration from a mapping, as files of settings hold it.

        Args:
            settings: Values by the names of the fields. A value may be text: a number, `none`, or the name of a mode
                or picker. What is not there has its default.

        Raises:
            ValueError: Names everything that is wrong: each key that is no field, each value and the rule it breaks.
        """
        return cls(**read_settings(settings, "PoolConfig."))

    @classmethod
    def from_env(cls, prefix: str = "GRPCPOOL_", environ: Mapping[str, str] | None = None) -> Self:
        """A configuration from environment variables: `GRPCPOOL_MAX_SIZE=4`, `GRPCPOOL_MODE=loose`.

        Args:
            prefix: What the names of the variables begin with; the rest is the name of a field in capitals. Every
                variable that begins so is meant. An underscore between the two may be left out here.
            environ: The variables; those of the process if not given.

        Raises:
            ValueError: Names everything that is wrong, by the names of the variables.
        """
        stem = prefix.rstrip("_") + "_"
        if stem == "_":
            raise ValueError(f"prefix = {prefix!r}: must not be empty, for every variable would be meant")
        variables = os.environ if environ is None else environ
        meant = {name.removeprefix(stem): value for name, value in variables.items() if name.startswith(stem)}
        return cls(**read_settings({name.lower(): value for name, value in meant.items()}, stem, str.upper))

    def replace(self, **changes: Any) -> Self:
        """The same configuration but for these fields.

        Raises:
            TypeError: There is no such field.
            ValueError: What comes of it is wrong or contradicts itself.
        """
        return dataclasses.replace(self, **changes)


def target_of(max_streams: int) -> int:
    """What `target_streams` is where nobody has set it: 5/9 of `max_streams`, rounded up, at least 1."""
    return max(1, -(-5 * max_streams // 9))


def is_count(value: object, low: int) -> bool:
    """Whether `value` is a whole number of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_seconds(value: object) -> bool:
    """Whether `value` can be a duration: a finite real number, not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


Rule = tuple[Callable[[Any], bool], str]
"""What a value must be, and how that is said."""


def _count(low: int, *, optional: bool = False) -> Rule:
    return lambda value: (optional and value is None) or is_count(value, low), (
        f"must be a whole number of at least {low}"
    )


# Pickers keep a list for each number of calls that a connection may carry. No server takes as many.
_MOST_STREAMS = 1_000_000

_SECONDS: Rule = is_seconds, "must be seconds, 0 or more"
_SECONDS_OR_NEVER: Rule = (
    lambda value: value is None or (is_seconds(value) and value > 0),
    "must be seconds, more than 0, or None for never",
)

_RULES: dict[str, Rule] = {
    "min_size": _count(0),
    "max_size": _count(1),
    "target_streams": _count(1, optional=True),
    "max_streams": (
        lambda value: is_count(value, 1) and value <= _MOST_STREAMS,
        f"must be a whole number from 1 to {_MOST_STREAMS}",
    ),
    "mode": (lambda value: isinstance(value, Mode), "must be Mode.STRICT or Mode.LOOSE"),
    "max_overflow": _count(0),
    "acquire_timeout": (
        lambda value: value is None or is_seconds(value),
        "must be seconds, 0 or more, or None to wait for ever",
    ),
    "max_waiters": _count(0, optional=True),
    "idle_timeout": _SECONDS_OR_NEVER,
    "max_age": _SECONDS_OR_NEVER,
    "age_jitter": (lambda value: is_seconds(value) and value < 1, "must be a fraction, from 0 to below 1"),
    "connect_timeout": (lambda value: is_seconds(value) and value > 0, "must be seconds, more than 0"),
    "drain_timeout": _SECONDS,
    "close_grace": _SECONDS,
    "picker": (lambda value: value in get_args(PickerName), f"must be one of {', '.join(get_args(PickerName))}"),
    "prime": (lambda value: value is None or callable(value), "must be callable with one channel, or None"),
    "leak_threshold": _SECONDS_OR_NEVER,
}


def refuse(found: list[str]) -> None:
    """Raises a `ValueError` that names the faults, if there are any."""
    if found:
        raise ValueError("\n".join(found))


def faults(values: Mapping[str, Any], named: Callable[[str], str] = "PoolConfig.{}".format) -> list[str]:
    """What is wrong with the values of all fields, called as `named` says; contradictions only if nothing else is."""
    wrong = [
        f"{named(field)} = {values[field]!r}: {rule}"
        for field, (is_met, rule) in _RULES.items()
        if not is_met(values[field])
    ]
    return wrong or [f"{named(field)} = {values[field]!r}: {rule}" for field, rule in _contradictions(values)]


def check_size(min_size: int, max_size: int) -> None:
    """Refuses bounds that contradict each other, or are none.

    Raises:
        ValueError: `min_size` is negative or above `max_size`, or `max_size` is below 1.
    """
    refuse(faults({**_defaults(), "min_size": min_size, "max_size": max_size}))


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(PoolConfig)}


def _contradictions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields that contradict others, with the rules that they break."""
    if values["min_size"] > values["max_size"]:
        yield "min_size", f"must not be above max_size, which is {values['max_size']}"
    if values["target_streams"] is not None and values["target_streams"] > values["max_streams"]:
        yield "target_streams", f"must not be above max_streams, which is {values['max_streams']}"
    if values["mode"] is Mode.STRICT and values["max_overflow"] not in (0, _DEFAULT_OVERFLOW):
        yield "max_overflow", "has no effect without mode=Mode.LOOSE"
    if values["max_age"] is None and values["age_jitter"] not in (0, _DEFAULT_JITTER):
        yield "age_jitter", "has no effect without max_age"


def read_settings(settings: Mapping[str, Any], stem: str, spell: Callable[[str], str] = str) -> dict[str, Any]:
    """The values of fields from settings that may be text.

    Args:
        settings: Values by the names of fields.
        stem: What the user sees before each name.
        spell: How the user spells it.

    Raises:
        ValueError: Names everything that is wrong.
    """

    def named(field: str) -> str:
        return stem + spell(field)

    unknown = [
        f"{named(key)}: there is no such setting{_meant(str(key), named)}" for key in settings if key not in _RULES
    ]
    given = {field: _from_text(field, value) for field, value in settings.items() if field in _RULES}
    refuse(unknown + faults({**_defaults(), **given}, named))
    return given


def _meant(key: str, named: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(key, _RULES, n=1)
    return f"; is {named(near[0])} meant?" if near else ""


def _from_text(field: str, value: Any) -> Any:
    """What a text stands for; itself if it stands for nothing, and what is no text."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text == "none":
        return None
    if field == "mode":
        return next((mode for mode in Mode if mode.value == text), value)
    if field == "picker":
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return value
