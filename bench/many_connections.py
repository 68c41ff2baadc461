"""Whether a lease costs more in a larger pool: 4 and 256 real connections."""

from __future__ import annotations

from _common import compare, fast_server, leasing, open_pool, report

_TIMES = 2000
_ROUNDS = 100
_BOUND = 1.2


def main() -> None:
    """Measures and reports."""
    with fast_server() as target, open_pool(target, 4) as small, open_pool(target, 256) as large:
        asks: dict[str, int | None] = {"a whole connection": None, "one stream": 1}
        measured = {
            name: compare(leasing(small, streams, _TIMES), leasing(large, streams, _TIMES), rounds=_ROUNDS)
            for name, streams in asks.items()
        }
    bounds = [_BOUND] * len(asks)
    report(
        "acquire + release",
        measured,
        panel="growth",
        per=_TIMES,
        base="4 connections",
        ours="256 connections",
        bounds=bounds,
    )


if __name__ == "__main__":
    main()
