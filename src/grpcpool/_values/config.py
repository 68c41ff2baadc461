"""The settings of a pool, validated on creation.

A configuration that exists is valid. Wrong and contradictory values, and settings without effect, raise a `ValueError`
that names each field, its value and the rule.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

ModeName = Literal["strict", "loose"]
PickerName = Literal["least_loaded", "round_robin", "fill"]

_DEFAULT_OVERFLOW = 10
_DEFAULT_JITTER = 0.1


class Mode(enum.Enum):
    """What a pool does when it needs another connection but has reached `PoolConfig.max_size`."""

    STRICT = "strict"
    """Waits until a place is free."""
    LOOSE = "loose"
    """Opens an extra connection at once, and closes it when it is released."""


if TYPE_CHECKING:

    class ModeOrName:
        """A field that accepts a mode or its name, and always holds a mode."""

        def __get__(self, config: object, owner: object = None) -> Mode: ...

        def __set__(self, config: object, value: Mode | ModeName) -> None: ...

    _STRICT = ModeOrName()
else:
    ModeOrName, _STRICT = Mode | ModeName, Mode.STRICT


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """The settings of a pool. Durations are seconds.

    Attributes:
        min_size: Minimum number of connections, kept open even when idle. 0 keeps none.
        max_size: Maximum number of connections. A connection that is being replaced counts as one with its successor;
            a draining connection, which only waits for its last calls, does not count.
        target_streams: Calls per connection above which the pool opens another connection in advance. `None`: 5/9 of
            `max_streams`, rounded up, which is 50 for the default of 90.
        max_streams: Maximum number of calls per connection. Keep it below the server's limit, usually 100: a Python
            server refuses calls near its limit, because it still counts streams that it has not cleaned up.
        mode: What happens at `max_size`, see `Mode`. The names `"strict"` and `"loose"` are accepted as well.
        max_overflow: Maximum number of extra connections in `Mode.LOOSE`; beyond it, callers wait as in `STRICT`.
        acquire_timeout: How long an acquire, or a call without a deadline of its own, may wait for a place.
            `None` waits without limit.
        max_waiters: Maximum number of waiters; beyond it, an acquire fails at once. `None`: no limit.
        idle_timeout: How long a connection above `min_size` may be idle before it is closed. `None`: no limit.
        max_age: Age at which a connection is replaced, gracefully. `None`: never.
        age_jitter: Maximum fraction of `max_age` by which it is shortened, at random for each connection, so that
            connections opened together are not replaced together.
        connect_timeout: How long a connection may take to become ready, `prime` included.
        drain_timeout: How long a retiring connection may wait for its calls before they are cancelled.
        close_grace: Default of `close(grace)`. 0 cancels at once, as gRPC's own `close()` does.
        picker: Which connection serves the next call: the one with the fewest calls (`least_loaded`), each in
            turn (`round_robin`), or the fullest below `target_streams`, to use few connections (`fill`).
        avoid_after_failure: How long a connection ranks behind others after a call on it failed as calls do on a sick
            server (`UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNKNOWN`, `RESOURCE_EXHAUSTED`). `None`: it does
            not.
        unresponsive_after: How long a connection may answer nothing while calls on it run into their deadlines, before
            it is replaced. `None`: no limit.
        health_service: The service whose health gRPC watches on each connection, by `grpc.health.v1` (`""`: that of the
            server as a whole). A connection to a server that is not healthy is lost until it is. Needs a target whose
            addresses the pool deals out. `None`: health is not watched.
        spread: Whether connections are dealt out over the addresses of the target. `False` leaves that to gRPC.
        max_resends: How often a call is sent again if the server refused it at its limit of streams (HTTP/2's
            `REFUSED_STREAM`), or if gRPC could not send it because its connection was down. Pauses between the attempts
            double from 10 ms. 0: never.
        prime: Called with each new channel before it is used, for instance to make a cheap call. If it raises, the
            connection fails. In `grpcpool.aio` it may be a coroutine function.
        leak_threshold: How long a lease may be held before it is reported, once, with the stack that acquired it.

    Raises:
        ValueError: A value is wrong or contradicts another; the message names field, value and rule.
    """

    min_size: int = 1
    max_size: int = 10
    target_streams: int | None = None
    max_streams: int = 90
    mode: ModeOrName = _STRICT
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
    avoid_after_failure: float | None = 5.0
    unresponsive_after: float | None = 20.0
    health_service: str | None = None
    spread: bool = True
    max_resends: int = 5
    # The channel's type differs between grpc and grpc.aio, and so does what the callable returns.
    prime: Callable[[Any], Any] | None = None
    leak_threshold: float | None = None

    def __post_init__(self) -> None:
        """Converts the name of a mode; raises a `ValueError` with everything that is wrong."""
        given: Any = self.mode
        if isinstance(given, str) and given in get_args(ModeName):
            object.__setattr__(self, "mode", Mode(given))
        refuse(faults({field: getattr(self, field) for field in _RULES}))

    @property
    def resolved_target_streams(self) -> int:
        """`target_streams`, or its default if it is `None`."""
        if self.target_streams is not None:
            return self.target_streams
        return target_of(self.max_streams)

    @classmethod
    def classic(cls, init: int, cap: int) -> Self:
        """Returns the presets of the Go pool that this project grew out of.

        Args:
            init: Connections that `open()` opens and the pool keeps (`min_size`).
            cap: Maximum number of connections (`max_size`), beyond which `LOOSE` opens extra ones.

        Returns:
            A configuration with `Mode.LOOSE` that closes idle connections after 10 s, replaces connections after 60 s,
            and gives calls 10 s at `close()`.
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
        """Returns a configuration from a mapping, for example from a settings file.

        Args:
            settings: Values by field name. A value may be text: a number, `true`, `false`, `none`, or the name of a
                mode or picker. Missing fields have their defaults.

        Raises:
            ValueError: The message names each unknown key, and each wrong value with the rule.
        """
        return cls(**read_settings(settings, "PoolConfig."))

    @classmethod
    def from_env(cls, prefix: str = "GRPCPOOL_", environ: Mapping[str, str] | None = None) -> Self:
        """Returns a configuration from environment variables: `GRPCPOOL_MAX_SIZE=4`, `GRPCPOOL_MODE=loose`.

        Args:
            prefix: The prefix of the variables' names; the rest is the name of a field in capitals. Every variable
                with the prefix must be a setting. The underscore at the end of the prefix may be omitted.
            environ: The variables; those of the process if not given.

        Raises:
            ValueError: The message names each wrong variable.
        """
        stem = prefix.rstrip("_") + "_"
        if stem == "_":
            raise ValueError(f"prefix = {prefix!r}: must not be empty, because every variable would have the prefix")
        variables = os.environ if environ is None else environ
        with_prefix = {name.removeprefix(stem): value for name, value in variables.items() if name.startswith(stem)}
        return cls(**read_settings({name.lower(): value for name, value in with_prefix.items()}, stem, str.upper))

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with these fields changed.

        Raises:
            TypeError: A field does not exist.
            ValueError: The result is wrong or contradicts itself.
        """
        return dataclasses.replace(self, **changes)


def target_of(max_streams: int) -> int:
    """Returns the default of `target_streams`: 5/9 of `max_streams`, rounded up, at least 1."""
    return max(1, -(-5 * max_streams // 9))


def is_count(value: object, low: int) -> bool:
    """Returns whether `value` is a whole number of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_seconds(value: object) -> bool:
    """Returns whether `value` can be a duration: a finite real number, not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


Rule = tuple[Callable[[Any], bool], str]
"""A check of a value, and its description."""


def _count(low: int, *, optional: bool = False) -> Rule:
    return lambda value: (optional and value is None) or is_count(value, low), (
        f"must be a whole number of at least {low}"
    )


# Pickers keep a ring for each possible number of calls on a connection. No server allows this many.
_MOST_STREAMS = 1_000_000

_SECONDS: Rule = is_seconds, "must be seconds, 0 or more"
_SECONDS_OR_NEVER: Rule = (
    lambda value: value is None or (is_seconds(value) and value > 0),
    "must be seconds, greater than 0, or None for never",
)

_RULES: dict[str, Rule] = {
    "min_size": _count(0),
    "max_size": _count(1),
    "health_service": (lambda value: value is None or isinstance(value, str), "must be the name of a service, or None"),
    "spread": (lambda value: isinstance(value, bool), "must be True or False"),
    "max_resends": _count(0),
    "target_streams": _count(1, optional=True),
    "max_streams": (
        lambda value: is_count(value, 1) and value <= _MOST_STREAMS,
        f"must be a whole number from 1 to {_MOST_STREAMS}",
    ),
    "mode": (lambda value: isinstance(value, Mode), "must be Mode.STRICT or Mode.LOOSE, or 'strict' or 'loose'"),
    "max_overflow": _count(0),
    "acquire_timeout": (
        lambda value: value is None or is_seconds(value),
        "must be seconds, 0 or more, or None to wait without limit",
    ),
    "max_waiters": _count(0, optional=True),
    "idle_timeout": _SECONDS_OR_NEVER,
    "max_age": _SECONDS_OR_NEVER,
    "age_jitter": (lambda value: is_seconds(value) and value < 1, "must be a fraction, at least 0 and less than 1"),
    "connect_timeout": (lambda value: is_seconds(value) and value > 0, "must be seconds, greater than 0"),
    "drain_timeout": _SECONDS,
    "close_grace": _SECONDS,
    "picker": (lambda value: value in get_args(PickerName), f"must be one of {', '.join(get_args(PickerName))}"),
    "avoid_after_failure": _SECONDS_OR_NEVER,
    "unresponsive_after": _SECONDS_OR_NEVER,
    "prime": (lambda value: value is None or callable(value), "must be a callable that takes a channel, or None"),
    "leak_threshold": _SECONDS_OR_NEVER,
}


def refuse(found: list[str]) -> None:
    """Raises a `ValueError` with these faults, if there are any."""
    if found:
        raise ValueError("\n".join(found))


def faults(values: Mapping[str, Any], named: Callable[[str], str] = "PoolConfig.{}".format) -> list[str]:
    """Returns what is wrong with the values; contradictions only if each value is valid. `named` formats the names."""
    wrong = [
        f"{named(field)} = {values[field]!r}: {rule}"
        for field, (is_met, rule) in _RULES.items()
        if not is_met(values[field])
    ]
    return wrong or [f"{named(field)} = {values[field]!r}: {rule}" for field, rule in _contradictions(values)]


def check_size(min_size: int, max_size: int) -> None:
    """Checks the bounds of a pool's size.

    Raises:
        ValueError: `min_size` is negative or above `max_size`, or `max_size` is below 1.
    """
    refuse(faults({**_defaults(), "min_size": min_size, "max_size": max_size}))


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(PoolConfig)}


def _contradictions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the fields that contradict others, with the rules that they break."""
    if values["min_size"] > values["max_size"]:
        yield "min_size", f"must not be greater than max_size ({values['max_size']})"
    if values["target_streams"] is not None and values["target_streams"] > values["max_streams"]:
        yield "target_streams", f"must not be greater than max_streams ({values['max_streams']})"
    if values["mode"] is Mode.STRICT and values["max_overflow"] not in (0, _DEFAULT_OVERFLOW):
        yield "max_overflow", "has no effect without mode=Mode.LOOSE"
    if values["max_age"] is None and values["age_jitter"] not in (0, _DEFAULT_JITTER):
        yield "age_jitter", "has no effect without max_age"


def read_settings(settings: Mapping[str, Any], stem: str, spell: Callable[[str], str] = str) -> dict[str, Any]:
    """Returns the values of fields from settings that may be text.

    Args:
        settings: Values by field name.
        stem: The text before each name in messages.
        spell: Converts a field's name to the user's spelling.

    Raises:
        ValueError: The message names everything that is wrong.
    """

    def named(field: str) -> str:
        return stem + spell(field)

    unknown = [f"{named(key)}: unknown setting{_suggestion(str(key), named)}" for key in settings if key not in _RULES]
    given = {field: _from_text(field, value) for field, value in settings.items() if field in _RULES}
    refuse(unknown + faults({**_defaults(), **given}, named))
    return given


def _suggestion(key: str, named: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(key, _RULES, n=1)
    return f"; did you mean {named(near[0])}?" if near else ""


_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

# How text is read that does not stand for a number, from the text and from its lower case.
_READ: dict[str, Callable[[str, str], Any]] = {
    "mode": lambda value, text: next((mode for mode in Mode if mode.value == text), value),
    "picker": lambda _, text: text,
    "spread": lambda value, text: _TRUTHS.get(text, value),
    "health_service": lambda value, _: value,
}


def _from_text(field: str, value: Any) -> Any:
    """Converts text to a value; returns anything else, and text without a meaning, unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text == "none":
        return None
    if (read := _READ.get(field)) is not None:
        return read(value, text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return value
