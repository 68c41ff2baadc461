"""Done-callbacks: those added after the end of a call, and those that make calls. `test_queued` covers others."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from typing import Any, Literal

import grpc
import pytest

import grpcpool
from grpcpool import ChannelPool, PoolConfig
from support.call_server import UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.programs import run_python
from support.waiting import LONG, eventually
from support.ways import NOT_BLOCKING, Way

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_added_to_a_call_that_was_cancelled_while_it_ran(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """A callback added after `cancel()` is called at once, as by gRPC, even if gRPC has not finished the call."""
    told: list[Any] = []
    tag = new_tag()
    call = way.begin(single, f"hold:{tag}")
    calls.wait_until_held(tag)
    call.cancel()
    call.add_done_callback(told.append)
    assert told == [call]


def test_a_callback_that_raises_after_the_end(single: ChannelPool, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a callback is logged, also if the call was over when the callback was added."""
    call = Way("unary_unary", "future", UU).begin(single)
    assert call.result(20)

    def fail(call: Any) -> None:
        raise ArithmeticError("a callback failed, as the test wants")

    call.add_done_callback(fail)
    assert "a callback of a call failed" in caplog.text


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
@pytest.mark.parametrize("on", ["pool", "lease"])
def test_a_callback_that_waits_for_a_place(
    calls: CallServer, make_pool: PoolMaker, on: Literal["pool", "lease"], way: Way
) -> None:
    """It gets the place of a call that ends meanwhile, though gRPC reports the ends of both on one thread."""
    pool = make_pool(calls.channel, max_size=1, max_streams=2)
    pool.open()

    def hold() -> Any:
        tag = new_tag()
        with pool.acquire(timeout=LONG, streams=1) if on == "lease" else contextlib.nullcontext(pool) as channel:
            call = way.begin(channel, f"hold:{tag}", timeout=LONG)
        calls.wait_until_held(tag)
        return call

    first, second = hold(), hold()
    called, is_full = threading.Event(), threading.Event()
    answers: list[Any] = []

    def call_again(_: Any) -> None:
        called.set()
        is_full.wait(LONG)
        answers.append(pool.unary_unary(UU)(b"ok", timeout=LONG))

    first.add_done_callback(call_again)
    first.cancel()
    assert called.wait(LONG)
    # The first one's place was free before its callback was called, and goes to another.
    third = hold()
    is_full.set()
    eventually(lambda: pool.stats().waiting == 1)
    second.cancel()
    eventually(lambda: answers == [b"0"])
    third.cancel()
    assert_at_rest(pool)


def test_those_of_calls_that_ended_as_the_program_ends(calls: CallServer) -> None:
    """They are called although the pool is not closed, as gRPC's thread calls them."""
    program = """
import sys, time
import grpcpool

pool = grpcpool.insecure_channel(sys.argv[1])
futures = [pool.unary_unary(sys.argv[2]).future(b"ok") for _ in range(5)]
for number, future in enumerate(futures):
    future.add_done_callback(lambda _, number=number: (time.sleep(0.05), print(number, flush=True)))
for future in futures:
    future.result(20)
"""
    assert sorted(run_python(program, calls.target, UU).stdout.split()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("way", [way for way in NOT_BLOCKING if way.streams_out], ids=str)
def test_a_stream_of_a_lease_that_is_over_keeps_no_connection(calls: CallServer, way: Way) -> None:
    """A caller may keep it for long after the pool has been closed."""
    with grpcpool.insecure_channel(calls.target, config=PoolConfig(max_size=1)) as pool:
        with pool.acquire(timeout=LONG) as lease:
            call = way.begin(lease)
            assert list(call)
        (slot,) = pool._driver.machine.fleet.slots
        left = weakref.ref(pool._driver), weakref.ref(slot.channel)
    del slot, lease, pool
    eventually(lambda: gc.collect() >= 0 and [each() for each in left] == [None, None])
    assert call.code() is grpc.StatusCode.OK
