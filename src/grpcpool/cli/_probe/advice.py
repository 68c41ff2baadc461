"""What a pool's configuration should be, by what was found, with the reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from grpcpool import PoolConfig

from .look import Finding

# A Python server refuses calls near its limit (it counts streams that it has not cleaned up yet).
_SAFE_PART: Final = 0.9
# What many servers and proxies allow, and more than one Python process keeps busy on one connection.
_PLENTY: Final = 900
_MAX_SIZE: Final = 100
_MAX_AGE: Final = 1800.0
_CONNECTS: Final = 10
_DEFAULTS: Final = PoolConfig()


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """A value for a field of `PoolConfig`, and why."""

    field: str
    value: Any
    reason: str


def advise(findings: Sequence[Finding], *, in_flight: int, is_name: bool) -> list[Advice]:
    """Recommends values for the addresses that answer.

    Args:
        findings: What was found at each address; one at least answers.
        in_flight: Calls that are expected to be in flight at once.
        is_name: Whether the target is a name, whose addresses may change.
    """
    answering = [finding for finding in findings if finding.answers]
    limits = [found.settings.max_concurrent_streams for found in answering if found.settings is not None]
    streams = _max_streams([limit for limit in limits if limit is not None])
    advice = [streams, *_sizes(streams.value, in_flight, len(answering))]
    if is_name and len(answering) > 1:
        reason = "so that addresses that the name gains later get their part, and those it loses are left"
        advice.append(Advice("max_age", _MAX_AGE, reason))
    return [*advice, *_connect_timeout(answering)]


def config_of(advice: Sequence[Advice]) -> PoolConfig:
    """The configuration as a whole."""
    return PoolConfig(**{each.field: each.value for each in advice})


def code_of(advice: Sequence[Advice]) -> str:
    """The configuration as a line of code."""
    return f"grpcpool.PoolConfig({', '.join(f'{each.field}={each.value!r}' for each in advice)})"


def _max_streams(limits: Sequence[int]) -> Advice:
    limit = min(limits, default=None)
    if limit is None:
        reason = f"the server announces no limit of streams; beyond {_PLENTY} one process is bound by its CPU"
        return Advice("max_streams", _PLENTY, reason)
    streams = max(1, int(limit * _SAFE_PART))
    if limit == 0:
        return Advice("max_streams", 1, "the server allows no stream at all for now: ask it again")
    if streams > _PLENTY:
        reason = f"the server allows {limit:,}, which is as good as no limit; one process does not need more"
        return Advice("max_streams", _PLENTY, reason)
    part = f"{_SAFE_PART:.0%}"
    reason = f"{part} of the server's {limit}: near its limit a server may refuse streams it still counts"
    return Advice("max_streams", streams, reason)


def _sizes(max_streams: int, in_flight: int, addresses: int) -> list[Advice]:
    target = PoolConfig(max_streams=max_streams).resolved_target_streams
    wanted = -(-in_flight // target)
    most = min(_MAX_SIZE, max(wanted, addresses, 2))
    reason = f"{in_flight} calls at once, {target} on each connection, need {wanted}"
    if most > wanted:
        reason += f"; {most} " + ("reach every address" if addresses > wanted else "survive the loss of one")
    elif most < wanted:
        reason += f"; more than {most} would not help one process"
    advice = [Advice("max_size", most, reason)]
    if addresses > 1:
        advice.insert(0, Advice("min_size", min(addresses, most), f"one for each of the {addresses} addresses"))
    return advice


def _connect_timeout(answering: Sequence[Finding]) -> list[Advice]:
    slowest = max((found.connect_seconds or 0) + (found.tls_seconds or 0) for found in answering)
    if slowest * _CONNECTS <= _DEFAULTS.connect_timeout:
        return []
    reason = f"{_CONNECTS} times the {slowest:.1f} s that the slowest connection took"
    return [Advice("connect_timeout", round(slowest * _CONNECTS, 1), reason)]
