"""How a pool is to behave: every knob, checked where it is set.

A configuration that exists is valid: wrong and contradictory values, and knobs that would have no effect, are
refused with a `ValueError` that names the field, its value and the rule.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
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
        """Refuses what is wrong."""
        _check_counts(self)
        _check_durations(self)
        _check_choices(self)
        _check_contradictions(self)

    @property
    def resolved_target_streams(self) -> int:
        """`target_streams`, or what `None` stands for: 5/9 of `max_streams`, rounded up, at least 1."""
        if self.target_streams is not None:
            return self.target_streams
        return max(1, -(-5 * self.max_streams // 9))

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


def _refuse(field: str, value: object, rule: str) -> ValueError:
    return ValueError(f"PoolConfig.{field} = {value!r}: {rule}")


def is_count(value: object, low: int) -> bool:
    """Whether `value` is a whole number of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _check_count(field: str, value: object, low: int) -> None:
    if not is_count(value, low):
        raise _refuse(field, value, f"must be a whole number of at least {low}")


def check_size(min_size: int, max_size: int) -> None:
    """Refuses bounds that contradict each other, or are none.

    Raises:
        ValueError: `min_size` is negative or above `max_size`, or `max_size` is below 1.
    """
    _check_count("min_size", min_size, 0)
    _check_count("max_size", max_size, 1)
    if min_size > max_size:
        raise _refuse("min_size", min_size, f"must not be above max_size, which is {max_size}")


def _check_counts(config: PoolConfig) -> None:
    check_size(config.min_size, config.max_size)
    _check_count("max_streams", config.max_streams, 1)
    _check_count("max_overflow", config.max_overflow, 0)
    if config.target_streams is not None:
        _check_count("target_streams", config.target_streams, 1)
    if config.max_waiters is not None:
        _check_count("max_waiters", config.max_waiters, 0)


def is_seconds(value: object) -> bool:
    """Whether `value` can be a duration: a finite real number, not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _check_durations(config: PoolConfig) -> None:
    for field in ("drain_timeout", "close_grace"):
        value = getattr(config, field)
        if not is_seconds(value):
            raise _refuse(field, value, "must be seconds, 0 or more")
    if config.acquire_timeout is not None and not is_seconds(config.acquire_timeout):
        raise _refuse("acquire_timeout", config.acquire_timeout, "must be seconds, 0 or more, or None to wait for ever")
    if not is_seconds(config.connect_timeout) or config.connect_timeout == 0:
        raise _refuse("connect_timeout", config.connect_timeout, "must be seconds, more than 0")
    for field in ("idle_timeout", "max_age", "leak_threshold"):
        value = getattr(config, field)
        if value is not None and (not is_seconds(value) or value == 0):
            raise _refuse(field, value, "must be seconds, more than 0, or None for never")
    if not is_seconds(config.age_jitter) or config.age_jitter >= 1:
        raise _refuse("age_jitter", config.age_jitter, "must be a fraction, from 0 to below 1")


def _check_choices(config: PoolConfig) -> None:
    if not isinstance(config.mode, Mode):
        raise _refuse("mode", config.mode, "must be Mode.STRICT or Mode.LOOSE")
    if config.picker not in get_args(PickerName):
        raise _refuse("picker", config.picker, f"must be one of {', '.join(get_args(PickerName))}")
    if config.prime is not None and not callable(config.prime):
        raise _refuse("prime", config.prime, "must be callable with one channel, or None")


def _check_contradictions(config: PoolConfig) -> None:
    if config.target_streams is not None and config.target_streams > config.max_streams:
        rule = f"must not be above max_streams, which is {config.max_streams}"
        raise _refuse("target_streams", config.target_streams, rule)
    if config.mode is Mode.STRICT and config.max_overflow not in (0, _DEFAULT_OVERFLOW):
        raise _refuse("max_overflow", config.max_overflow, "has no effect without mode=Mode.LOOSE")
    if config.max_age is None and config.age_jitter not in (0, _DEFAULT_JITTER):
        raise _refuse("age_jitter", config.age_jitter, "has no effect without max_age")
