"""Bugs that other pools had with leases and connections, one test each."""

from __future__ import annotations

import gc
import os
import threading
import time

import grpc
import pytest

from grpcpool import (
    ChannelPool,
    Lease,
    Listener,
    Mode,
    PoolConfig,
    PoolOpenError,
    PoolTimeoutError,
)
from grpcpool.events import Opened, Opening
from grpcpool.testing import ManualClock
from support.connections import addresses_of_connections_to, connections_to
from support.fakes import ConstantFactory, FakeChannel, FakeFactory, failing_factory
from support.pools import PoolMaker
from support.servers import ECHO, PEER, Server, unary
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)


def test_n_leases_are_n_connections(server: Server, make_pool: PoolMaker) -> None:
    """Seven leases are seven TCP connections, as counted by the system and as seen by the server."""
    pool = make_pool(server.channel, max_size=7)
    leases = [pool.acquire() for _ in range(7)]
    peers = {unary(lease, PEER, b"").decode() for lease in leases}
    assert len(peers) == 7
    assert addresses_of_connections_to(server.port) == peers
    for lease in leases:
        lease.release()
    assert connections_to(server.port) == 7


def test_a_double_release_is_harmless(server: Server, make_pool: PoolMaker) -> None:
    """However often a lease is released, its place becomes free once."""
    pool = make_pool(server.channel, max_size=1, max_streams=2)
    leases = [pool.acquire(streams=1) for _ in range(2)]
    for _ in range(3):
        leases[0].release()
    assert pool.stats().in_flight == 1
    leases[1].release()
    assert pool.stats().in_flight == 0


def test_a_call_created_but_not_read_protects_its_channel(server: Server, make_pool: PoolMaker) -> None:
    """An unread stream keeps its connection open through a refresh."""
    pool = make_pool(server.channel, max_size=1)
    with pool.acquire() as lease:
        stream = lease.unary_stream("/test.Test/Count")(b"3,0", timeout=LONG)
    pool.refresh()
    eventually(lambda: pool.stats().closed["refresh"] == 1 or pool.stats().draining == 1)
    assert list(stream) == [b"0", b"1", b"2"]
    eventually(lambda: connections_to(server.port) == 1)


def test_a_burst_is_spread_evenly(server: Server, make_pool: PoolMaker) -> None:
    """With 200 streams acquired at once on 10 connections, no connection carries more than 1.5 times the mean."""
    pool = make_pool(server.channel, min_size=10, max_size=10)
    pool.open()
    leases = together(50, lambda _: [pool.acquire(timeout=LONG, streams=1) for _ in range(4)])
    loads = [channel.in_flight for channel in pool.stats().channels]
    assert sum(loads) == 200
    assert max(loads) <= 1.5 * 20
    for lease in sum(leases, start=list[Lease]()):
        lease.release()


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin"])
def test_no_connection_is_left_out(make_pool: PoolMaker, picker: str) -> None:
    """Consecutive calls go to all connections: ties are broken at random, or the connections take turns."""
    pool = make_pool(FakeFactory(), min_size=4, picker=picker)
    pool.open()
    for _ in range(400):
        pool.acquire(streams=1).release()
    calls = [channel.calls for channel in pool.stats().channels]
    assert sum(calls) == 400
    # The mean is 100; fewer than 50 have a chance of 1 in a hundred million.
    assert min(calls) > 50


def test_ties_are_broken_at_random(make_pool: PoolMaker) -> None:
    """Two pools do not pick in the same order."""

    def order(pool: ChannelPool) -> list[int]:
        picked = []
        for _ in range(64):
            with pool.acquire(streams=1):
                picked.append(next(channel.id for channel in pool.stats().channels if channel.in_flight))
        return picked

    pools = [make_pool(FakeFactory(), min_size=4, max_size=4) for _ in range(2)]
    for pool in pools:
        pool.open()
    assert order(pools[0]) != order(pools[1])


def test_fill_uses_few_connections(make_pool: PoolMaker) -> None:
    """With `picker="fill"` consecutive calls stay on one connection."""
    pool = make_pool(FakeFactory(), min_size=4, picker="fill")
    pool.open()
    for _ in range(50):
        pool.acquire(streams=1).release()
    assert sorted(channel.calls for channel in pool.stats().channels) == [0, 0, 0, 50]


def test_fifo_without_barging(server: Server, make_pool: PoolMaker) -> None:
    """Waiters are served in the order in which they came, and newcomers do not pass them."""
    pool = make_pool(server.channel, max_size=1)
    held = pool.acquire()
    served: list[int] = []

    def wait(i: int) -> None:
        with pool.acquire(timeout=LONG) as lease:
            served.append(i)
            unary(lease, ECHO, b"")

    waiters = []
    for i in range(20):
        waiters.append(background(lambda i=i: wait(i)))  # type: ignore[misc]
        eventually(lambda i=i: pool.stats().waiting == i + 1)  # type: ignore[misc]
    held.release()
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    for waiter in waiters:
        waiter.result(LONG)
    assert served == list(range(20))


def test_a_waiter_that_times_out_while_granted_loses_no_place(make_pool: PoolMaker) -> None:
    """Timeouts that coincide with releases lose no place: afterwards each place can be acquired."""
    pool = make_pool(FakeFactory(), max_size=2)

    def work(i: int) -> int:
        got = 0
        for round_ in range(40):
            try:
                with pool.acquire(timeout=0.0005 * ((i + round_) % 4)):
                    got += 1
                    time.sleep(0.0005)
            except PoolTimeoutError:
                pass
        return got

    assert sum(together(8, work)) > 0
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)
    with pool.acquire(timeout=LONG), pool.acquire(timeout=LONG):
        assert pool.stats().size == 2


def test_acquire_creates_at_once_when_there_is_room(server: Server, make_pool: PoolMaker) -> None:
    """Ten acquires on an empty pool open ten connections in parallel, long before any timeout."""
    pool = make_pool(server.channel, min_size=0, max_size=10)
    leases = together(10, lambda _: pool.acquire(timeout=1000))
    assert connections_to(server.port) == 10
    for lease in leases:
        lease.release()


def test_discard_wakes_a_waiter(make_pool: PoolMaker) -> None:
    """A waiter gets the connection that replaces the discarded one."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    held = pool.acquire()
    waiting = background(lambda: pool.acquire(timeout=None))
    eventually(lambda: pool.stats().waiting == 1)
    held.discard()
    waiting.result(LONG).release()
    assert len(factory.made) == 2


def test_age_is_checked_in_the_background(server: Server, make_pool: PoolMaker) -> None:
    """A connection of an unused pool is replaced at `max_age`, and there is always one."""
    pool = make_pool(server.channel, max_age=0.2, age_jitter=0)
    pool.open()
    first = addresses_of_connections_to(server.port)
    eventually(lambda: pool.stats().closed["age"] >= 2)
    assert pool.stats().ready == 1
    assert first.isdisjoint(addresses_of_connections_to(server.port))


def test_close_ends_every_worker(server: Server, make_pool: PoolMaker) -> None:
    """Whatever a pool was doing, no thread of it is left when `close()` returns."""
    for work in ({"max_age": 0.05}, {"idle_timeout": 0.05}, {"leak_threshold": 0.05}, {"min_size": 5}):
        pool = make_pool(server.channel, name="worker", **work)
        lease = pool.acquire()
        time.sleep(0.1)
        lease.release()
        pool.close()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("grpcpool-worker")]


def test_release_after_close_closes(server: Server, make_pool: PoolMaker) -> None:
    """Releasing a lease of a closing pool closes its connection."""
    pool = make_pool(server.channel)
    lease = pool.acquire()
    closing = background(lambda: pool.close(grace=1000))
    eventually(lambda: pool.closed)
    assert unary(lease, ECHO, b"a") == b"a"
    lease.release()
    closing.result(LONG)
    eventually(lambda: connections_to(server.port) == 0)


def test_overflow_is_closed_on_release(server: Server, make_pool: PoolMaker) -> None:
    """An extra connection of a loose pool closes on its release, and not before."""
    pool = make_pool(server.channel, max_size=1, mode=Mode.LOOSE, max_overflow=2)
    leases = [pool.acquire() for _ in range(3)]
    assert connections_to(server.port) == 3
    leases.pop().release()
    eventually(lambda: connections_to(server.port) == 2)
    leases.pop().release()
    eventually(lambda: connections_to(server.port) == 1)
    leases.pop().release()
    assert pool.stats().idle == 1


def test_the_factory_error_is_the_cause(make_pool: PoolMaker) -> None:
    """The factory's error is the cause of the pool's error."""
    with pytest.raises(PoolOpenError) as caught:
        make_pool(failing_factory).open()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_the_connect_error_is_the_cause(make_pool: PoolMaker) -> None:
    """For a dead target the cause is gRPC's own error, with its text."""
    with Server() as server:
        pass
    pool = make_pool(server.channel)
    with pytest.raises(PoolOpenError) as caught:
        pool.open(timeout=LONG)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.__cause__.code() is grpc.StatusCode.UNAVAILABLE
    assert "onnect" in str(caught.value)


def test_open_of_a_silent_target_keeps_its_timeout(make_pool: PoolMaker) -> None:
    """For a target that accepts and never answers, `open(timeout)` fails after its timeout."""
    with Server() as server:
        server.freeze()
        pool = make_pool(server.channel)
        begun = time.monotonic()
        with pytest.raises(PoolOpenError):
            pool.open(timeout=0.3)
        assert 0.3 <= time.monotonic() - begun < 5
        assert pool.stats().size == 0
        server.thaw()
        pool.open(timeout=LONG)
        assert pool.stats().ready == 1


def test_a_failed_open_closes_what_it_opened(make_pool: PoolMaker) -> None:
    """If one of two targets is dead, `open()` fails, and no connection to the other stays open."""
    with Server() as alive:
        with Server() as dead:
            pass
        targets = iter([alive, alive, dead])
        pool = make_pool(lambda: next(targets).channel(), min_size=3)
        with pytest.raises(PoolOpenError):
            pool.open()
        eventually(lambda: connections_to(alive.port) == 0)
        assert pool.stats().size == 0


def test_a_factory_returning_none_is_an_error(make_pool: PoolMaker) -> None:
    """A factory that returns `None` fails `open()` with an error that says so."""
    factory: ConstantFactory = ConstantFactory(None)
    pool = make_pool(factory)
    with pytest.raises(PoolOpenError, match="NoneType"):
        pool.open()


def test_a_failed_replacement_keeps_the_old_one(make_pool: PoolMaker) -> None:
    """When no successor can be opened, the old connection keeps serving, and there is no busy loop."""
    with Server() as server:
        calls = []

        def factory() -> grpc.Channel:
            calls.append(1)
            if len(calls) > 1:
                raise ConnectionRefusedError
            return server.channel()

        pool = make_pool(factory, max_age=0.1, age_jitter=0)
        pool.open()
        eventually(lambda: pool.stats().open_failures >= 3)
        with pool.acquire(timeout=0) as lease:
            assert unary(lease, ECHO, b"a") == b"a"
        assert len(calls) < 50


def test_jitter_is_drawn_once(make_pool: PoolMaker, clock: ManualClock) -> None:
    """The moment when a connection retires is drawn once, at its opening, and differs between connections."""
    pool = make_pool(FakeFactory(), min_size=5, max_age=1000, age_jitter=0.5)
    pool.open()
    begun = clock.monotonic()

    def retirements() -> list[float]:
        return [slot.retire_at - begun for slot in pool._driver.machine.fleet.slots]

    drawn = retirements()
    assert len(set(drawn)) == 5
    assert all(500 <= moment <= 1000 for moment in drawn)
    for _ in range(10):
        clock.advance(40)
        pool.acquire().release()
    assert retirements() == drawn


def test_a_pool_of_size_0_grows(server: Server, make_pool: PoolMaker) -> None:
    """With `min_size=0` a pool opens nothing by itself, opens on demand, and shrinks to nothing."""
    pool = make_pool(server.channel, min_size=0, idle_timeout=0.2)
    pool.open()
    assert connections_to(server.port) == 0
    with pool.acquire() as lease:
        unary(lease, ECHO, b"")
    eventually(lambda: connections_to(server.port) == 0)
    with pool.acquire(timeout=LONG) as lease:
        assert unary(lease, ECHO, b"a") == b"a"


def test_shrinking_checks_the_load_again(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Load that returns at the last moment before shrinking keeps the connections that it needs."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=1, max_size=4, max_streams=10, target_streams=5, idle_timeout=60)
    leases = [pool.acquire(streams=5) for _ in range(4)]
    eventually(lambda: pool.stats().ready == 4)
    for lease in leases[1:]:
        lease.release()
    clock.advance(59)
    leases[1:] = [pool.acquire(streams=5) for _ in range(3)]
    clock.advance(1)
    clock.advance(1)
    assert pool.stats().ready == 4
    for lease in leases:
        lease.release()


def test_a_draining_connection_is_taken_back_before_dialling(server: Server, make_pool: PoolMaker) -> None:
    """A draining connection is used again, over the same TCP connection, before another is opened."""
    pool = make_pool(server.channel, max_size=2, max_streams=2)
    both = [pool.acquire(streams=1), pool.acquire(streams=2)]
    before = addresses_of_connections_to(server.port)
    assert len(before) == 2
    pool.resize(max_size=1)
    assert pool.stats().draining == 1
    pool.resize(max_size=2)
    waiting = background(lambda: pool.acquire(timeout=LONG, streams=2))
    eventually(lambda: pool.stats().waiting == 1)
    for lease in both:
        lease.release()
    waiting.result(LONG).release()
    assert addresses_of_connections_to(server.port) <= before


def test_a_knob_without_effect_is_refused() -> None:
    """`max_overflow` without loose, and `age_jitter` without `max_age`, raise `ValueError`."""
    with pytest.raises(ValueError, match="max_overflow = 5: has no effect"):
        PoolConfig(max_overflow=5)
    with pytest.raises(ValueError, match=r"age_jitter = 0\.2: has no effect"):
        PoolConfig(age_jitter=0.2)


def test_a_pool_dropped_without_close_frees_its_threads_and_connections(server: Server) -> None:
    """A pool dropped without `close()` is closed by the garbage collector."""
    pool = ChannelPool(server.channel, PoolConfig(min_size=3), name="forgotten")
    pool.open()
    with pool.acquire() as lease:
        unary(lease, ECHO, b"")
    assert connections_to(server.port) == 3
    del pool, lease
    gc.collect()
    eventually(lambda: connections_to(server.port) == 0)
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("grpcpool-forgotten")])


def test_a_listener_that_raises_is_survived(server: Server, make_pool: PoolMaker) -> None:
    """An exception in a listener does not affect the pool."""

    class Broken(Listener):
        def opening(self, event: Opening) -> None:
            raise RuntimeError

        def opened(self, event: Opened) -> None:
            raise RuntimeError

    pool = make_pool(server.channel, listeners=[Broken()])
    with pool.acquire(timeout=LONG) as lease:
        assert unary(lease, ECHO, b"a") == b"a"


def test_a_lost_server_costs_no_slot(make_pool: PoolMaker) -> None:
    """When the server goes, the connections keep their slots; when it comes back, they serve again."""
    with Server() as server:
        pool = make_pool(server.channel, min_size=3, max_size=3)
        pool.open()
        ids = [channel.id for channel in pool.stats().channels]
        server.kill()
        eventually(lambda: connections_to(server.port) == 0)
        eventually(lambda: pool.stats().ready == 0)
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.2)
        assert [channel.id for channel in pool.stats().channels] == ids
        assert pool.stats().ready == 0
        server.start()
        with pool.acquire(timeout=LONG) as lease:
            assert unary(lease, ECHO, b"a", wait_for_ready=True) == b"a"
        eventually(lambda: pool.stats().ready == 3)
        assert [channel.id for channel in pool.stats().channels] == ids


def test_no_file_descriptor_is_lost(server: Server) -> None:
    """Pools that are opened and closed leave no file descriptor open."""

    def use() -> None:
        with ChannelPool(server.channel, PoolConfig(min_size=3)) as pool:
            pool.open()
            with pool.acquire() as lease:
                unary(lease, ECHO, b"")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- only their number is asked

    use()
    before = descriptors()
    for _ in range(5):
        use()
    eventually(lambda: descriptors() <= before)


def test_any_channel_works(make_pool: PoolMaker) -> None:
    """A factory may return any `grpc.Channel`, such as a fake or one wrapped by interceptors."""
    with Server() as server:

        class Passing(grpc.UnaryUnaryClientInterceptor):
            passed = 0

            def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                Passing.passed += 1
                return continuation(client_call_details, request)

        pool = make_pool(lambda: grpc.intercept_channel(server.channel(), Passing()))
        with pool.acquire() as lease:
            assert unary(lease, ECHO, b"a") == b"a"
            assert unary(grpc.intercept_channel(lease, Passing()), ECHO, b"b") == b"b"
        assert Passing.passed == 3
    fakes = make_pool(FakeChannel)
    with fakes.acquire() as lease:
        assert unary(lease, ECHO, b"a") == b"a"
