"""The machine against the model: whatever happens, in whatever order, the invariants hold. See `world.py`."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from machine.settings import Settings, dice
from machine.walk import random_settings, walk
from machine.world import World

# For two slow cores: no deadline and few examples, because `test_walk` covers more at a tenth of the cost.
SLOW = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # To explain a failure, each step would be traced: on Python 3.11 that takes minutes.
    phases=(Phase.generate, Phase.shrink),
)

INDEX = st.integers(0, 15)


class PoolModel(RuleBasedStateMachine):
    """Every event that a driver may report to the machine, in any order."""

    world: World

    @initialize(choice=st.integers(0, 2**32 - 1))
    def begin(self, choice: int) -> None:
        """Creates a pool with random settings."""
        self.world = World(random_settings(dice(choice)), seed=choice)

    @rule(
        streams=st.sampled_from([None, 1, 1, 2, 3]),
        patience=st.sampled_from([0.0, 1.0, 3.0, math.inf]),
        fail_fast=st.booleans(),
        fast=st.booleans(),
    )
    def request(self, streams: int | None, patience: float, *, fail_fast: bool, fast: bool) -> None:
        """A caller makes a request."""
        if streams is not None:
            streams = min(streams, self.world.config.max_streams)
        self.world.request(streams, patience=patience, fail_fast=fail_fast, fast=fast)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def release(self, index: int) -> None:
        """A caller releases what it holds."""
        self.world.release(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def discard(self, index: int) -> None:
        """A caller releases what it holds and asks to close the connection."""
        self.world.discard(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def unfit(self, index: int) -> None:
        """A grant turns out to be on a connection that is down."""
        self.world.unfit(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def refused_stream(self, index: int) -> None:
        """A server refuses a call."""
        self.world.refused_stream(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def note_refusal(self, index: int) -> None:
        """A server refuses a call made on a lease."""
        self.world.note_refusal(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def failed(self, index: int) -> None:
        """A call fails as calls do on a sick server."""
        self.world.failed(index)

    @precondition(lambda self: self.world.held)
    @rule(index=INDEX)
    def unanswered(self, index: int) -> None:
        """A call runs into its deadline."""
        self.world.unanswered(index)

    @precondition(lambda self: self.world.asked)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        """A waiter gives up."""
        self.world.cancel(index)

    @precondition(lambda self: self.world.dials)
    @rule(index=INDEX)
    def opened(self, index: int) -> None:
        """A connection is ready."""
        self.world.opened(index)

    @precondition(lambda self: self.world.dials)
    @rule(index=INDEX)
    def open_failed(self, index: int) -> None:
        """A connection could not be opened."""
        self.world.open_failed(index)

    @precondition(lambda self: self.world.slots)
    @rule(index=INDEX)
    def lost(self, index: int) -> None:
        """A connection goes down."""
        self.world.lost(index)

    @precondition(lambda self: self.world.slots)
    @rule(index=INDEX)
    def blocked(self, index: int) -> None:
        """A signal handler has raised in gRPC on a connection."""
        self.world.blocked(index)

    @precondition(lambda self: self.world.slots)
    @rule(index=INDEX)
    def recovered(self, index: int) -> None:
        """A connection is up again."""
        self.world.recovered(index)

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0]))
    def advance(self, seconds: float) -> None:
        """Time passes, and the driver is late."""
        self.world.advance(seconds)

    @rule()
    def tick(self) -> None:
        """A tick, early or late."""
        self.world.tick()

    @rule()
    def tick_in_time(self) -> None:
        """A tick exactly at the next deadline."""
        self.world.tick_in_time()

    @rule(patience=st.sampled_from([0.0, 1.0, math.inf]))
    def open(self, patience: float) -> None:
        """A caller calls `open()`."""
        self.world.open(patience=patience)

    @rule(low=st.integers(0, 4), high=st.integers(1, 4))
    def resize(self, low: int, high: int) -> None:
        """The bounds change."""
        self.world.resize(min(low, high), high)

    @rule()
    def connect(self) -> None:
        """A caller wants a connection, but no place on it."""
        self.world.connect()

    @rule()
    def refresh(self) -> None:
        """`refresh()` is called."""
        self.world.refresh()

    @precondition(lambda self: len(self.world.asked) > 10)
    @rule(grace=st.sampled_from([0.0, 2.0]))
    def close(self, grace: float) -> None:
        """The pool is closed."""
        self.world.close(grace)

    def teardown(self) -> None:
        """Ends every call and closes the pool."""
        if hasattr(self, "world") and not self.world.broken:
            self.world.finish()


# A failing history is shortened for up to five minutes. A timeout meanwhile would hide it.
TestPoolModel = pytest.mark.timeout(600)(PoolModel.TestCase)
TestPoolModel.settings = SLOW


@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_walk(seed: int) -> None:
    """The invariants hold on long random walks, twenty for each of these seeds."""
    for each in range(seed, seed + 20):
        walk(each, 150)


@pytest.mark.parametrize("seed", [1003608, 1004316, 2000852, 2010279, 2016393, 2025981, 6019727, 6026684])
def test_rare_walk(seed: int) -> None:
    """Histories that one walk in thousands has: several targets, late ticks, and channels that connect late."""
    walk(seed, 150)


def test_a_call_after_the_pause_of_dials_may_open_all_that_the_pool_needs() -> None:
    """Only while dials have to pause is there one dial for a call. Afterwards the pool opens `min_size`."""
    world = World(Settings(min_size=2, max_size=2), seed=1)
    world.request(1, patience=1.0, fail_fast=True)
    while world.slots:
        world.tick_in_time()
    while world.dials:
        world.open_failed(0)
    world.advance(5.0)
    # It closes all that it has opened, although a dial has succeeded.
    world.open(patience=0.0)
    world.opened(0)
    world.tick()
    assert not world.slots
    world.request(1, patience=1.0, fail_fast=True)
    assert len(world.slots) == 2


def test_a_target_that_is_used_again_is_looked_up_again() -> None:
    """Although the look-up from before it was left has not returned: its answer is of no use."""
    world = World(Settings(min_size=1, max_size=1, addresses=1, endpoints=2), seed=1)
    world.connect()
    world.tick()
    world.open_failed(0)
    # Its last look-up begins a second before the target is left.
    for seconds in (2.0, 7.0, 1.0):
        world.advance(seconds)
        world.connect()
        world.tick()
    assert world.machine.fleet.endpoint == 1
    world.opened(-1)
    assert world.machine.fleet.endpoint == 0
    world.tick()


def test_a_dial_that_begins_when_a_look_up_fails_waits_for_the_next() -> None:
    """Only what had waited for it fails with it. The next one begins within a second."""
    settings = Settings(min_size=0, max_size=1, addresses=1)
    # Only look-ups find addresses: each dial needs one.
    world = World(settings, seed=2)
    assert world.discovered
    world.request(1, patience=math.inf)
    world.advance(5.0)
    world.tick()
    world.advance(0.25)
    world.open(patience=3.0)
    world.looked_up([])
    (slot,) = world.slots
    assert slot.awaits_address
    world.tick_in_time()
    world.looked_up(world.possible)
    assert not slot.awaits_address


def test_what_a_waiter_gets_may_drain_in_the_same_step() -> None:
    """With its grant, fewer connections are needed, and those to an address that is gone go. The call goes on."""
    settings = Settings(min_size=0, max_size=2, target_streams=1, max_streams=1, addresses=2, idle_timeout=None)
    world = World(settings, seed=1)
    world.request(1, patience=math.inf)
    world.tick()
    world.looked_up(world.possible)
    while world.dials:
        world.opened(0)
    world.request(1, patience=math.inf)
    world.advance(6.0)
    world.tick()
    world.looked_up(world.possible[1:])
    world.request(1, patience=math.inf, pause=0.5)
    world.release(0)
    world.release(0)
    world.advance(1.0)
    world.tick()
    (held,) = world.held
    assert (held.slot.state, held.slot.address) == ("draining", world.possible[0])


def test_a_channel_for_calls_may_go_because_its_target_is_left() -> None:
    """A dial that ends late may be the one after which the next target is used."""
    settings = Settings(min_size=0, max_size=1, addresses=2, endpoints=2, idle_timeout=None)
    world = World(settings, seed=1)
    world.request(1, patience=math.inf, fail_fast=True)
    world.tick()
    world.looked_up(world.possible)
    for _ in range(2):
        world.advance(1.0)
        world.open_failed(0)
        world.tick()
    world.advance(9.0)
    world.unreachable(0)
    assert world.machine.fleet.endpoint == 1


def test_a_quiet_pool_comes_to_rest() -> None:
    """Without events a pool settles: after ticks at each deadline, `min_size` connections and no deadline remain."""
    world = World(Settings(min_size=1, max_size=4, target_streams=1, max_streams=2), seed=1)
    for _ in range(8):
        world.request(1, patience=math.inf)
        world.opened(0)
    while world.held:
        world.release(0)
    for _ in range(40):
        world.tick_in_time()
    assert [slot.state for slot in world.slots] == ["ready"]
    assert world.machine.next_deadline() == math.inf
