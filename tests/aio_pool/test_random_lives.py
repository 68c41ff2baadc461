"""Random lives of a pool: anything happens in any order, and after each step the figures add up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import Mode, PoolConfig, PoolError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left
from support.loops import in_loop, settle
from support.servers import ECHO
from support.waiting import together

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity

_STEPS = 120
_CALLS = (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError, PoolError)


class Life:
    """A pool, its leases, its waiters, and its calls."""

    def __init__(self, dice: random.Random, clock: ManualClock) -> None:
        """Starts with an unused pool of random settings."""
        self.dice = dice
        self.clock = clock
        self.healed = False
        self.factory = FakeFactory(self._make)
        loose: dict[str, Any] = {"mode": Mode.LOOSE, "max_overflow": 2}
        config = PoolConfig(
            min_size=dice.choice([0, 1, 2]),
            max_size=dice.choice([2, 3]),
            max_streams=dice.choice([1, 3, 10]),
            **dice.choice([{}, loose]),
            idle_timeout=dice.choice([None, 5]),
            max_age=dice.choice([None, 20]),
            drain_timeout=30,
            prime=self._prime,
        )
        self.pool = ChannelPool(self.factory, config)
        self.leases: list[Lease] = []
        self.waiting: list[asyncio.Task[Lease]] = []
        self.calls: list[asyncio.Future[bytes]] = []

    def _make(self) -> FakeChannel:
        if not self.healed and self.dice.random() < 0.2:
            raise ConnectionRefusedError("bad luck")
        fate = "ok" if self.healed else self.dice.choice(["ok", "ok", "never", "holds"])
        return FakeChannel(connects=fate != "never", holds_calls=fate == "holds")

    async def _prime(self, channel: grpc.aio.Channel) -> None:
        fate = "ok" if self.healed else self.dice.choice(["ok", "ok", "error", "slow", "never"])
        if fate == "error":
            raise LookupError("bad luck")
        if fate != "ok":
            await (settle(5) if fate == "slow" else asyncio.Event().wait())

    # --- what may happen ----------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Requests a lease."""
        streams = self.dice.choice([None, 1, self.dice.randint(1, self.pool.config.max_streams)])
        timeout = self.dice.choice([None, 0, 3])
        self.waiting.append(asyncio.ensure_future(self.pool.acquire(timeout, streams=streams)))

    def cancel_a_request(self) -> None:
        """Cancels a request, waiting or just granted."""
        if self.waiting:
            self.dice.choice(self.waiting).cancel()

    def release(self) -> None:
        """Releases or discards a lease, here or on another thread."""
        if not self.leases:
            return
        lease = self.leases.pop(self.dice.randrange(len(self.leases)))
        way = self.dice.choice([Lease.release, Lease.release, Lease.discard])
        if self.dice.random() < 0.3:
            together(1, lambda _: way(lease))
        else:
            way(lease)

    def call(self) -> None:
        """Begins a call on the pool or on a lease."""
        channel = self.dice.choice([self.pool, *self.leases])
        with contextlib.suppress(*_CALLS):
            self.calls.append(
                asyncio.ensure_future(channel.unary_unary(ECHO)(b"a", timeout=self.dice.choice([5, None])))
            )

    def cancel_a_call(self) -> None:
        """Cancels a call."""
        if self.calls:
            self.dice.choice(self.calls).cancel()

    def reconfigure(self) -> None:
        """Changes the bounds or refreshes the pool, here or on another thread."""
        low = self.dice.randint(0, 2)
        changes: list[Callable[[], None]] = [
            self.pool.refresh,
            lambda: self.pool.resize(min_size=low, max_size=low + self.dice.randint(1, 2)),
        ]
        change = self.dice.choice(changes)
        together(1, lambda _: change()) if self.dice.random() < 0.3 else change()

    def change_state(self) -> None:
        """A connection goes down, or is up again."""
        if self.factory.open:
            states = [State.READY, State.READY, State.TRANSIENT_FAILURE, State.IDLE]
            self.dice.choice(self.factory.open).set_state(self.dice.choice(states))

    def end_a_call(self) -> None:
        """A server answers."""
        running = [call for channel in self.factory.made for call in channel.calls if not call.done()]
        if running:
            self.dice.choice(running).finish([b"a"])

    def pass_time(self) -> None:
        """Time passes."""
        self.clock.advance(self.dice.choice([0.1, 1, 6, 12]))

    # --- what always holds --------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Collects the leases granted meanwhile; refused or cancelled requests no longer wait."""
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.leases.append(task.result())

    def check(self) -> None:
        """The figures add up."""
        stats = self.pool.stats()
        assert stats.in_flight == sum(it.in_flight for it in stats.channels)
        assert all(0 <= it.in_flight <= self.pool.config.max_streams for it in stats.channels)
        assert not any(it.exclusive and it.in_flight != 1 for it in stats.channels)

    async def end(self) -> None:
        """Everything works again: in the end nothing waits and nothing is in flight."""
        self.healed = True
        # Each waiter may need the only connection for itself.
        for _ in range(4 + len(self.waiting)):
            self.clock.advance(15)
            for channel in self.factory.open:
                channel.holds_calls = False
                channel.set_state(State.READY)
            await settle()
            self.collect()
            while self.leases:
                self.leases.pop().release()
            for channel in self.factory.made:
                for call in channel.calls:
                    call.finish([b"a"])
            await settle()
        self.collect()
        assert not self.waiting, f"a request is stuck: {self.pool}"
        while self.leases:
            self.leases.pop().release()
        await asyncio.wait_for(asyncio.gather(*self.calls, return_exceptions=True), 10)
        await settle()
        assert (self.pool.stats().in_flight, self.pool.stats().waiting) == (0, 0), self.pool


@pytest.mark.parametrize("seed", range(25))
@in_loop
async def test_a_random_life(clock: ManualClock, seed: int) -> None:
    """Whatever happens in whatever order, accounting is exact at every turn, and in the end nothing is stuck."""
    dice = random.Random(seed)  # noqa: S311 -- no secret
    life = Life(dice, clock)
    acts = [life.acquire, life.acquire, life.acquire, life.cancel_a_request, life.release, life.release, life.call]
    acts += [life.cancel_a_call, life.reconfigure, life.change_state, life.end_a_call, life.end_a_call, life.pass_time]
    for _ in range(_STEPS):
        dice.choice(acts)()
        await settle(dice.choice([0, 0, 1, 2, 10]))
        life.collect()
        life.check()
    await settle()
    assert len(life.factory.open) <= life.pool.stats().size
    await life.end()
    await life.pool.close()
    assert_nothing_left(life.pool)
    assert not life.factory.open
    del life
