"""Recommends a configuration for a pool from the probe's reports, with the reason for each value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from grpcpool import PoolConfig

from .probe_address import AddressReport

# A Python server refuses calls near its limit, because it still counts streams that it has not cleaned up.
_SAFE_FRACTION: Final = 0.9
# What many servers and proxies allow. One Python process does not keep more streams busy on one connection.
_ENOUGH_STREAMS: Final = 900
_MAX_SIZE: Final = 100
_MAX_AGE: Final = 1800.0
_CONNECT_TIMEOUT_FACTOR: Final = 10
_DEFAULTS: Final = PoolConfig()


@dataclasses.dataclass(frozen=True, slots=True)
class Recommendation:
    """A value for a field of `PoolConfig`, and the reason."""

    field: str
    value: Any
    reason: str


def recommend(reports: Sequence[AddressReport], *, in_flight: int, is_name: bool) -> list[Recommendation]:
    """Recommends values from the reports of the addresses that answer.

    Args:
        reports: One for each address; at least one answers.
        in_flight: Calls that are expected to be in flight at once.
        is_name: Whether the target is a name, whose addresses may change.
    """
    answering = [report for report in reports if report.answers]
    limits = [report.settings.max_concurrent_streams for report in answering if report.settings is not None]
    streams = _max_streams([limit for limit in limits if limit is not None])
    recommendations = [streams, *_sizes(streams.value, in_flight, len(answering))]
    if is_name and len(answering) == 1:
        reason = "if the address is that of a balancer, only new connections reach servers that are added behind it"
        recommendations.append(Recommendation("max_age", _MAX_AGE, reason))
    return [*recommendations, *_connect_timeout(answering)]


def config_of(recommendations: Sequence[Recommendation]) -> PoolConfig:
    """Returns the recommended configuration."""
    return PoolConfig(**{each.field: each.value for each in recommendations})


def code_of(recommendations: Sequence[Recommendation]) -> str:
    """Returns the recommended configuration as a line of Python."""
    return f"grpcpool.PoolConfig({', '.join(f'{each.field}={each.value!r}' for each in recommendations)})"


def _max_streams(limits: Sequence[int]) -> Recommendation:
    limit = min(limits, default=None)
    if limit is None:
        reason = (
            f"the server announces no limit on streams; beyond {_ENOUGH_STREAMS}, one process is limited by its CPU"
        )
        return Recommendation("max_streams", _ENOUGH_STREAMS, reason)
    streams = max(1, int(limit * _SAFE_FRACTION))
    if limit == 0:
        return Recommendation("max_streams", 1, "the server currently allows no streams at all: probe it again later")
    if streams > _ENOUGH_STREAMS:
        reason = f"the server allows {limit:,}, effectively unlimited; one process does not need more"
        return Recommendation("max_streams", _ENOUGH_STREAMS, reason)
    share = f"{_SAFE_FRACTION:.0%}"
    reason = f"{share} of the server's {limit}: near its limit, a server may still count streams that have ended"
    return Recommendation("max_streams", streams, reason)


def _sizes(max_streams: int, in_flight: int, addresses: int) -> list[Recommendation]:
    target = PoolConfig(max_streams=max_streams).resolved_target_streams
    needed = -(-in_flight // target)
    max_size = min(_MAX_SIZE, max(needed, addresses, 2))
    reason = f"{in_flight} calls at once, {target} on each connection, need {needed}"
    if max_size > needed:
        survives = "survive the loss of one" if addresses <= needed else f"reach {_of_all(max_size, addresses)}"
        reason += f"; {max_size} {survives}"
    elif max_size < needed:
        reason += f"; more than {max_size} would not help one process"
    recommendations = [Recommendation("max_size", max_size, reason)]
    if addresses > 1:
        min_size = min(addresses, max_size)
        reason = f"one for {_of_all(min_size, addresses)}"
        recommendations.insert(0, Recommendation("min_size", min_size, reason))
    return recommendations


def _of_all(size: int, addresses: int) -> str:
    return f"each of the {addresses} addresses" if size >= addresses else f"each of {size} of the {addresses} addresses"


def _connect_timeout(answering: Sequence[AddressReport]) -> list[Recommendation]:
    slowest = max((report.connect_seconds or 0) + (report.tls_seconds or 0) for report in answering)
    if slowest * _CONNECT_TIMEOUT_FACTOR <= _DEFAULTS.connect_timeout:
        return []
    reason = f"{_CONNECT_TIMEOUT_FACTOR} times the {slowest:.1f} s that the slowest connection took"
    return [Recommendation("connect_timeout", round(slowest * _CONNECT_TIMEOUT_FACTOR, 1), reason)]
