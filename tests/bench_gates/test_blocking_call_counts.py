"""What the pool adds to a blocking unary call, as counts of calls: the same on every machine, every time.

Times are measured by hand, in `bench/`. The bounds are what the code needs today; a change that raises one must say
why. The calls are real ones. Only the thread that calls is counted: a blocking call does its work on no other.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from bench_gates.counting import Calls
from grpcpool import isolated
from grpcpool._grpc.lean_blocking_multicallables import make_lean
from grpcpool._grpc.unbroken_locks import secure_channel_lock
from support.pools import PoolMaker
from support.servers import ECHO, Server

# The multicallable, Places.take, Places.release.
_PYTHON_CALLS = 3

# The clock twice, the lock's __exit__ twice, and the spare place, which is taken from a list and put back.
_C_CALLS = 6


def _count(call: grpc.UnaryUnaryMultiCallable[bytes, bytes], request: bytes = b"request") -> Calls:
    """The least of several counts: the first fills caches."""
    counts = []
    for _ in range(5):
        with Calls() as calls:
            call(request)
        counts.append(calls)
    return min(counts, key=lambda calls: (calls.python.total(), calls.c.total()))


@pytest.fixture
def counts(server: Server, make_pool: PoolMaker) -> tuple[Calls, Calls]:
    """The calls that a unary call makes on a channel, and on a pool of one connection."""

    def factory() -> grpc.Channel:
        return grpc.insecure_channel(server.target, isolated())

    pool = make_pool(factory, min_size=1, max_size=1)
    pool.open()
    with factory() as channel:
        # As the pool does with its own: locks and multicallables make fewer calls then.
        secure_channel_lock(channel)
        bare: Any = channel.unary_unary(ECHO)
        make_lean(bare)
        return _count(bare), _count(pool.unary_unary(ECHO))


def test_a_blocking_call_costs_few_calls(counts: tuple[Calls, Calls]) -> None:
    """Over the pool, an uncontended blocking call makes three more calls of Python functions, and six of C."""
    bare, ours = counts
    assert 0 < ours.python.total() - bare.python.total() <= _PYTHON_CALLS, ours.python - bare.python
    assert 0 < ours.c.total() - bare.c.total() <= _C_CALLS, ours.c - bare.c


def test_it_creates_no_effects(counts: tuple[Calls, Calls]) -> None:
    """An uncontended blocking call creates no effect objects: the driver has nothing to carry out."""
    _, ours = counts
    assert not ours.made_effects
