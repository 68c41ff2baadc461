"""Random lives of a pool: everybody does anything in any order, and after each step the figures add up."""

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
    """A pool, those who have leases of it, those who wait, and those who call."""

    def __init__(self, dice: random.Random, clock: ManualClock) -> None:
        """Begins."""
        self.dice = dice
        self.clock = clock
        self.well = False
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
        if not self.well and self.dice.random() < 0.2:
            raise ConnectionRefusedError("bad luck")
        fate = "ok" if self.well else self.dice.choice(["ok", "ok", "never", "holds"])
        return FakeChannel(connects=fate != "never", holds_calls=fate == "holds")

    async def _prime(self, channel: grpc.aio.Channel) -> None:
        fate = "ok" if self.well else self.dice.choice(["ok", "ok", "error", "slow", "never"])
        if fate == "error":
            raise LookupError("bad luck")
        if fate != "ok":
            await (settle(5) if fate == "slow" else asyncio.Event().wait())

    # --- what may happen ----------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Somebody asks for a lease."""
        streams = self.dice.choice([None, 1, self.dice.randint(1, self.pool.config.max_streams)])
        timeout = self.dice.choice([None, 0, 3])
        self.waiting.append(asyncio.ensure_future(self.pool.acquire(timeout, streams=streams)))

    def give_up(self) -> None:
        """Somebody is cancelled, waiting or just served."""
        if self.waiting:
            self.dice.choice(self.waiting).cancel()

    def give_back(self) -> None:
        """Somebody gives a lease back, in one way or another, here or on another thread."""
        if not self.leases:
            return
        lease = self.leases.pop(self.dice.randrange(len(self.leases)))
        way = self.dice.choice([Lease.release, Lease.release, Lease.discard])
        if self.dice.random() < 0.3:
            together(1, lambda _: way(lease))
        else:
            way(lease)

    def call(self) -> None:
        """Somebody calls, with the pool or a lease, and may leave the call to itself."""
        channel = self.dice.choice([self.pool, *self.leases])
        with contextlib.suppress(*_CALLS):
            self.calls.append(
                asyncio.ensure_future(channel.unary_unary(ECHO)(b"a", timeout=self.dice.choice([5, None])))
            )

    def cancel_a_call(self) -> None:
        """Somebody has had enough."""
        if self.calls:
            self.dice.choice(self.calls).cancel()

    def change(self) -> None:
        """Somebody changes the bounds, or has all replaced, here or on another thread."""
        low = self.dice.randint(0, 2)
        changes: list[Callable[[], None]] = [
            self.pool.refresh,
            lambda: self.pool.resize(min_size=low, max_size=low + self.dice.randint(1, 2)),
        ]
        change = self.dice.choice(changes)
        together(1, lambda _: change()) if self.dice.random() < 0.3 else change()

    def shake(self) -> None:
        """A connection goes down, or comes back."""
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

    # --- what is always so --------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Who has been served holds a lease; who has been refused, or cancelled, does not wait any more."""
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
        """All is well again: nobody is left waiting, nothing in flight, and the pool is closed."""
        self.well = True
        # Of those who wait each may need the one connection for himself.
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
        assert not self.waiting, f"somebody is stuck: {self.pool}"
        while self.leases:
            self.leases.pop().release()
        await asyncio.wait_for(asyncio.gather(*self.calls, return_exceptions=True), 10)
        await settle()
        assert (self.pool.stats().in_flight, self.pool.stats().waiting) == (0, 0), self.pool


@pytest.mark.parametrize("seed", range(25))
@in_loop
async def test_a_random_life(clock: ManualClock, seed: int) -> None:
    """Whatever happens in whatever order: the count is right at every turn, and in the end nobody is stuck."""
    dice = random.Random(seed)  # noqa: S311 -- no secret
    life = Life(dice, clock)
    acts = [life.ask, life.ask, life.ask, life.give_up, life.give_back, life.give_back, life.call, life.cancel_a_call]
    acts += [life.change, life.shake, life.end_a_call, life.end_a_call, life.pass_time]
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
