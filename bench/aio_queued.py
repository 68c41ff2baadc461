"""Ten thousand calls that wait for a place: the memory of each; none is lost, and none overtakes another.

The pool has one connection with one place, so calls are answered in the order in which they begin. Memory is what
Python allocates, as `tracemalloc` counts it, for calls with a deadline, which are the larger ones.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Sequence

import grpc

import grpcpool.aio
from _common import ECHO, fast_server, footer, isolated_aio_channel
from _results import Row, keep, verdict
from grpcpool._demo.screen import Screen

_CALLS = 10_000
_BOUND = 5000
_TIMEOUT = 600.0


class Memory:
    """Measures how much more memory is in use than at the start."""

    def __init__(self) -> None:
        """Starts measuring."""
        gc.collect()
        tracemalloc.start()
        self._before, _ = tracemalloc.get_traced_memory()

    def per_call(self) -> float:
        """Bytes in use in addition, per call."""
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
        return (now - self._before) / _CALLS


async def measure(target: str) -> tuple[dict[str, float], list[bytes]]:
    """Lets the calls wait, and then run; returns the memory for each, and the answers in order."""
    config = grpcpool.PoolConfig(min_size=1, max_size=1, max_streams=1, max_waiters=None)
    requests = [str(number).encode() for number in range(_CALLS)]
    answers: list[bytes] = []

    async def take_answer(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> None:
        answers.append(await call)

    async with grpcpool.aio.ChannelPool(lambda: isolated_aio_channel(target), config) as pool:
        await pool.open()
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = pool.unary_unary(ECHO)
        # It takes the place, so that all others wait.
        first = method(b"first")
        memory = Memory()
        calls = [method(request, timeout=_TIMEOUT) for request in requests]
        used = {"a call that waits": memory.per_call()}
        tasks = [asyncio.create_task(take_answer(call)) for call in calls]
        # Lets the tasks begin.
        await asyncio.sleep(0)
        used["a call that waits, and its task"] = memory.per_call()
        tracemalloc.stop()
        await first
        await asyncio.gather(*tasks, return_exceptions=True)
    return used, answers


def overtaken(answers: Sequence[bytes]) -> int:
    """The number of calls answered after one that began later."""
    latest, count = -1, 0
    for number in map(int, answers):
        count += number < latest
        latest = max(latest, number)
    return count


def main() -> None:
    """Measures and reports."""
    with fast_server() as target:
        used, answers = asyncio.run(measure(target))
    rows = [(f"{_CALLS} queued calls", "", "bound", "")]
    rows += [(name, f"{each:.0f} bytes", str(_BOUND), verdict(met=each < _BOUND)) for name, each in used.items()]
    for name, count in (("lost", _CALLS - len(set(answers))), ("overtaken", overtaken(answers))):
        rows.append((name, str(count), "0", verdict(met=not count)))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>><")
    screen.write(footer())
    keep(
        Row(
            panel="memory",
            what=f"asyncio, {name}",
            ours="pool",
            our_value=each / 1000,
            unit="kB",
            rounds=_CALLS,
            bound=_BOUND / 1000,
        )
        for name, each in used.items()
    )


if __name__ == "__main__":
    main()
