"""Code that creates a channel for each request: make, call and close, with gRPC's channels and with handles.

In interleaved rounds of the same process. The bound is 1.5 times the time of gRPC's channels, which share connections
below.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc

import grpcpool
from _common import ECHO, fast_server, footer
from _results import Row, keep
from grpcpool._demo.screen import Screen

_ROUNDS = 9
_REQUESTS = 100
_BOUND = 1.5
_BASE = "grpc.insecure_channel"


def _round(create: Callable[[str], Any], target: str) -> float:
    began = time.perf_counter()
    for _ in range(_REQUESTS):
        with create(target) as channel:
            channel.unary_unary(ECHO)(b"request")
    return time.perf_counter() - began


def _row(name: str, rounds: list[dict[str, float]]) -> Row:
    low, ratio, high = statistics.quantiles([each[name] / each[_BASE] for each in rounds])
    base, ours = (1e6 * statistics.median(each[side] for each in rounds) / _REQUESTS for side in (_BASE, name))
    return Row(
        panel="calls",
        what="a channel for each request",
        ours=name,
        our_value=ours,
        unit="us",
        base=_BASE,
        base_value=base,
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(rounds),
        bound=_BOUND if "shared" in name else None,
    )


def main() -> None:
    """Measures and reports."""
    ways: dict[str, Callable[[str], Any]] = {
        _BASE: grpc.insecure_channel,
        "grpcpool.shared_channel": grpcpool.shared_channel,
        "grpcpool.insecure_channel": grpcpool.insecure_channel,
    }
    with fast_server() as target:
        rounds = [{name: _round(create, target) for name, create in ways.items()} for _ in range(_ROUNDS + 1)][1:]
    rows: list[tuple[str, ...]] = [(f"{_REQUESTS} requests", "median", "/ gRPC", "least", "most", "bound")]
    for name in ways:
        ratios = [each[name] / each[_BASE] for each in rounds]
        bound = f"{_BOUND}" if "shared" in name else ""
        figures = (statistics.median(ratios), min(ratios), max(ratios))
        middle = f"{statistics.median(each[name] for each in rounds) * 1000:.0f} ms"
        rows.append((name, middle, *(f"{figure:.2f}" for figure in figures), bound))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>>>>>")
    screen.write(footer())
    keep(_row(name, rounds) for name in ways if name != _BASE)


if __name__ == "__main__":
    main()
