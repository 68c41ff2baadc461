"""What a `PoolConfig` accepts, and how it rejects the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from grpcpool import Mode, PoolConfig
from grpcpool._values.config import ModeName

pytestmark = pytest.mark.timeout(30)

NAN, INF = float("nan"), float("inf")

_COUNT_1, _COUNT_0 = "must be a whole number of at least 1", "must be a whole number of at least 0"
_STREAMS = "must be a whole number from 1 to 1000000"
_SECONDS, _POSITIVE = "must be seconds, 0 or more", "must be seconds, greater than 0"
_FRACTION = "must be a fraction, at least 0 and less than 1"
_MODE = "must be Mode.STRICT or Mode.LOOSE, or 'strict' or 'loose'"
_NEVER = "must be seconds, greater than 0, or None for never"
_NO_COUNTS: list[object] = [-1, 1.0, NAN, True, "1"]
_NO_SECONDS: list[object] = [-1, -0.5, NAN, INF, -INF, True, "1", 10**400, 1j]

_WRONG: list[tuple[str, object, str]] = [
    *(("min_size", value, _COUNT_0) for value in [*_NO_COUNTS, None]),
    *(("max_size", value, _COUNT_1) for value in [*_NO_COUNTS, 0, None]),
    *(("max_streams", value, _STREAMS) for value in [*_NO_COUNTS, 0, None, 2**31 - 1]),
    *(("target_streams", value, _COUNT_1) for value in [*_NO_COUNTS, 0]),
    *(("max_overflow", value, _COUNT_0) for value in [*_NO_COUNTS, None]),
    *(("max_waiters", value, _COUNT_0) for value in _NO_COUNTS),
    *(("drain_timeout", value, _SECONDS) for value in [*_NO_SECONDS, None]),
    *(("close_grace", value, _SECONDS) for value in [*_NO_SECONDS, None]),
    *(("acquire_timeout", value, f"{_SECONDS}, or None to wait without limit") for value in _NO_SECONDS),
    *(("connect_timeout", value, _POSITIVE) for value in [*_NO_SECONDS, 0, None]),
    *(("idle_timeout", value, _NEVER) for value in [*_NO_SECONDS, 0]),
    *(("max_age", value, _NEVER) for value in [*_NO_SECONDS, 0.0]),
    *(("leak_threshold", value, _NEVER) for value in [*_NO_SECONDS, 0]),
    *(("age_jitter", value, _FRACTION) for value in [*_NO_SECONDS, 1, 1.5, None]),
    *(("mode", value, _MODE) for value in ["Strict", "lax", None, 1, ["loose"]]),
    *(("picker", value, "must be one of least_loaded, round_robin, fill") for value in ["random", None, 1, ["fill"]]),
    *(("prime", value, "must be a callable that takes a channel, or None") for value in [1, "x", True]),
]


@pytest.mark.parametrize(
    ("field", "value", "rule"), _WRONG, ids=[f"{field}={repr(value)[:20]}" for field, value, _ in _WRONG]
)
def test_a_wrong_value_is_refused(field: str, value: object, rule: str) -> None:
    """The error names the field, its value, and the rule that it breaks."""
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match="PoolConfig") as caught:
        PoolConfig(**settings)
    assert str(caught.value) == f"PoolConfig.{field} = {value!r}: {rule}"


@pytest.mark.parametrize("name", ["strict", "loose"])
def test_a_mode_may_be_given_by_its_name(name: ModeName) -> None:
    """The configuration holds the mode itself, however it was created, and equals one that was given the mode."""
    config = PoolConfig(mode=name)
    assert config.mode is Mode(name)
    assert config == PoolConfig(mode=Mode(name))
    assert PoolConfig().replace(mode=name) == config
    assert PoolConfig.from_mapping({"mode": name}) == config


def test_a_mode_given_by_its_name_contradicts_as_the_mode_does() -> None:
    """`max_overflow` has no effect in strict mode, whichever way that is written."""
    assert PoolConfig(mode="loose", max_overflow=3).max_overflow == 3
    with pytest.raises(ValueError, match=r"^PoolConfig\.max_overflow = 3: has no effect without mode=Mode\.LOOSE$"):
        PoolConfig(mode="strict", max_overflow=3)


_CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"min_size": 5, "max_size": 4}, "PoolConfig.min_size = 5: must not be greater than max_size (4)"),
    ({"min_size": 11}, "PoolConfig.min_size = 11: must not be greater than max_size (10)"),
    (
        {"target_streams": 91},
        "PoolConfig.target_streams = 91: must not be greater than max_streams (90)",
    ),
    ({"max_overflow": 3}, "PoolConfig.max_overflow = 3: has no effect without mode=Mode.LOOSE"),
    ({"age_jitter": 0.5}, "PoolConfig.age_jitter = 0.5: has no effect without max_age"),
]


@pytest.mark.parametrize(("settings", "message"), _CONTRADICTIONS, ids=lambda value: str(value)[:40])
def test_a_contradiction_is_refused(settings: dict[str, Any], message: str) -> None:
    """Values that contradict each other, or a setting without effect, are refused by name."""
    with pytest.raises(ValueError, match="PoolConfig") as caught:
        PoolConfig(**settings)
    assert str(caught.value) == message


_RIGHT: list[dict[str, Any]] = [
    {},
    {"min_size": 0},
    {"min_size": 10, "max_size": 10},
    {"target_streams": 90},
    {"target_streams": 1, "max_streams": 1},
    {"mode": Mode.LOOSE, "max_overflow": 3},
    {"max_waiters": 0},
    {"max_waiters": None, "acquire_timeout": None, "idle_timeout": None},
    {"acquire_timeout": 0, "close_grace": 0, "drain_timeout": 0},
    {"max_age": 1, "age_jitter": 0.999},
    {"idle_timeout": 1e-9, "connect_timeout": 1e-9, "leak_threshold": 1e12},
    {"picker": "fill", "prime": print},
]


@pytest.mark.parametrize("settings", _RIGHT, ids=str)
def test_extreme_values_are_accepted(settings: dict[str, Any]) -> None:
    """The extremes that the rules allow are accepted and kept."""
    config = PoolConfig(**settings)
    assert {field: getattr(config, field) for field in settings} == settings


def test_all_errors_are_reported_at_once() -> None:
    """One error lists all invalid values at once."""
    with pytest.raises(ValueError, match="PoolConfig") as caught:
        PoolConfig(max_size=0, picker="any", close_grace=-1)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        f"PoolConfig.max_size = 0: {_COUNT_1}",
        f"PoolConfig.close_grace = -1: {_SECONDS}",
        "PoolConfig.picker = 'any': must be one of least_loaded, round_robin, fill",
    ]


# --- from elsewhere -------------------------------------------------------------------------------------------------


def test_from_a_mapping() -> None:
    """Values may be what the field takes, or text for it; other fields have their defaults."""
    mapping = {
        "max_size": 4,
        "min_size": "2",
        "mode": "Loose",
        "idle_timeout": "none",
        "max_age": " 1.5e3 ",
        "picker": "FILL",
        "acquire_timeout": None,
        "prime": print,
    }
    assert PoolConfig.from_mapping(mapping) == PoolConfig(
        max_size=4,
        min_size=2,
        mode=Mode.LOOSE,
        idle_timeout=None,
        max_age=1500.0,
        picker="fill",
        acquire_timeout=None,
        prime=print,
    )
    assert PoolConfig.from_mapping({}) == PoolConfig()


def test_all_errors_in_a_mapping_are_reported_at_once() -> None:
    """One error lists all unknown keys, each with the likely intended one, and all invalid values."""
    mapping: dict[Any, Any] = {
        "max_sise": 3,
        7: 1,
        "max_size": "many",
        "min_size": "1.0",
        "prime": "x",
        "max_age": "nan",
    }
    with pytest.raises(ValueError, match="PoolConfig") as caught:
        PoolConfig.from_mapping(mapping)
    assert str(caught.value).splitlines() == [
        "PoolConfig.max_sise: unknown setting; did you mean PoolConfig.max_size?",
        "PoolConfig.7: unknown setting",
        f"PoolConfig.min_size = 1.0: {_COUNT_0}",
        f"PoolConfig.max_size = 'many': {_COUNT_1}",
        f"PoolConfig.max_age = nan: {_NEVER}",
        "PoolConfig.prime = 'x': must be a callable that takes a channel, or None",
    ]


@pytest.mark.parametrize("prefix", ["ORDERS_POOL_", "ORDERS_POOL"])
def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Every variable with the prefix is a setting; other variables are ignored."""
    monkeypatch.setenv("ORDERS_POOL_MAX_SIZE", "3")
    monkeypatch.setenv("ORDERS_POOL_MODE", "loose")
    monkeypatch.setenv("ORDERS_POOLS", "3")
    assert PoolConfig.from_env(prefix) == PoolConfig(max_size=3, mode=Mode.LOOSE)
    assert PoolConfig.from_env(prefix, {"MAX_SIZE": "3"}) == PoolConfig()
    assert PoolConfig.from_env(environ={"GRPCPOOL_MAX_STREAMS": "20"}) == PoolConfig(max_streams=20)


def test_all_errors_in_the_environment_are_reported_at_once() -> None:
    """One error lists all faults, by the names of the variables."""
    with pytest.raises(ValueError, match="ORDERS") as caught:
        PoolConfig.from_env("ORDERS_", {"ORDERS_MAX_SISE": "3", "ORDERS_MIN_SIZE": "", "ORDERS_PICKER": "any"})
    assert str(caught.value).splitlines() == [
        "ORDERS_MAX_SISE: unknown setting; did you mean ORDERS_MAX_SIZE?",
        f"ORDERS_MIN_SIZE = '': {_COUNT_0}",
        "ORDERS_PICKER = 'any': must be one of least_loaded, round_robin, fill",
    ]
    with pytest.raises(ValueError, match=r"ORDERS_MIN_SIZE = 5: must not be greater than max_size \(4\)"):
        PoolConfig.from_env("ORDERS", {"ORDERS_MIN_SIZE": "5", "ORDERS_MAX_SIZE": "4"})
    with pytest.raises(ValueError, match="prefix = ''"):
        PoolConfig.from_env("")


def test_replaced() -> None:
    """`replace` changes the named fields, checks the result, and rejects unknown fields."""
    config = PoolConfig(max_size=4)
    assert config.replace(min_size=2) == PoolConfig(min_size=2, max_size=4)
    with pytest.raises(ValueError, match="min_size = 5"):
        config.replace(min_size=5)
    with pytest.raises(TypeError, match="max_sise"):
        config.replace(max_sise=5)


def test_an_unknown_field_is_a_type_error() -> None:
    """A misspelt setting raises `TypeError`."""
    settings: dict[str, Any] = {"max_sise": 4}
    with pytest.raises(TypeError, match="max_sise"):
        PoolConfig(**settings)


def test_fields_are_given_by_name_and_stay() -> None:
    """A configuration takes no positional arguments, is immutable, and equals one with the same values."""
    with pytest.raises(TypeError):
        PoolConfig(1)  # type: ignore[call-arg]
    config = PoolConfig(max_size=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_size = 4  # type: ignore[misc]
    assert config == PoolConfig(max_size=3)
    assert dataclasses.replace(config, max_size=4) == PoolConfig(max_size=4)
    with pytest.raises(ValueError, match="max_size = 0"):
        dataclasses.replace(config, max_size=0)


def test_the_defaults_are_those_of_the_design() -> None:
    """Every setting has the documented default."""
    assert dataclasses.asdict(PoolConfig()) == {
        "min_size": 1,
        "max_size": 10,
        "target_streams": None,
        "max_streams": 90,
        "mode": Mode.STRICT,
        "max_overflow": 10,
        "acquire_timeout": 30.0,
        "max_waiters": 1000,
        "idle_timeout": 600.0,
        "max_age": None,
        "age_jitter": 0.1,
        "connect_timeout": 10.0,
        "drain_timeout": 600.0,
        "close_grace": 0.0,
        "picker": "least_loaded",
        "avoid_after_failure": 5.0,
        "unresponsive_after": 20.0,
        "health_service": None,
        "spread": True,
        "max_resends": 5,
        "prime": None,
        "leak_threshold": None,
    }


@pytest.mark.parametrize(("max_streams", "target"), [(90, 50), (100, 56), (9, 5), (10, 6), (2, 2), (1, 1)])
def test_the_target_is_five_ninths_of_the_limit(max_streams: int, target: int) -> None:
    """`target_streams=None` stands for 5/9 of `max_streams`, rounded up."""
    assert PoolConfig(max_streams=max_streams).resolved_target_streams == target


def test_a_given_target_is_used() -> None:
    """A given `target_streams` is used as it is."""
    assert PoolConfig(target_streams=7).resolved_target_streams == 7


def test_classic_presets() -> None:
    """The presets: idle for 10 s, exactly 60 s of life, 10 s of grace, and loose."""
    assert PoolConfig.classic(2, 5) == PoolConfig(
        min_size=2, max_size=5, idle_timeout=10, max_age=60, age_jitter=0, close_grace=10, mode=Mode.LOOSE
    )
