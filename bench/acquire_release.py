"""What an uncontended lease costs, against the least that any pool with a lock could cost.

The floor is two rounds (one for acquire, one for release) of: take a lock, pop from a deque, append to it. The pool has
four real connections.
"""

from __future__ import annotations

from _common import compare, fast_server, floor, leasing, open_pool, report

_TIMES = 2000
_ROUNDS = 300
_BOUND = 5.0


def main() -> None:
    """Measures and reports."""
    with fast_server() as target, open_pool(target, 4) as pool:
        measured = {
            "a whole connection": compare(floor(_TIMES), leasing(pool, None, _TIMES), rounds=_ROUNDS),
            "one stream": compare(floor(_TIMES), leasing(pool, 1, _TIMES), rounds=_ROUNDS),
        }
    report(
        "acquire + release", measured, panel="leases", per=_TIMES, base="floor", ours="pool", bounds=[_BOUND, _BOUND]
    )


if __name__ == "__main__":
    main()
