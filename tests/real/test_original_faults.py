"""The faults of the Go pool that this one grew out of do not occur here, and each of its calls has an equivalent."""

from __future__ import annotations

import contextlib
import gc
import threading
import time

import grpc
import pytest

from grpcpool import (
    ChannelPool,
    Lease,
    Mode,
    PoolClosedError,
    PoolConfig,
    PoolOpenError,
    PoolTimeoutError,
)
from support.connections import connections_to
from support.fakes import HangingFactory, failing_factory
from support.pools import PoolMaker
from support.servers import ECHO, PEER, Server, unary
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)


# --- its faults -----------------------------------------------------------------------------------------------------


def test_an_empty_pool_opens_at_once(server: Server, make_pool: PoolMaker) -> None:
    """A connection is opened at once. There, `Get` waited its whole time before it dialled."""
    pool = make_pool(server.channel, min_size=0)
    begun = time.monotonic()
    pool.acquire(timeout=1000).release()
    assert time.monotonic() - begun < 100
    with pool.acquire(), pool.acquire(timeout=LONG):
        assert connections_to(server.port) == 2


def test_a_lease_outlives_the_timeout_of_its_acquire(server: Server, make_pool: PoolMaker) -> None:
    """A lease outlives the timeout of its acquire. There, a connection that took the whole time to make was dead."""
    pool = make_pool(server.channel)
    lease = pool.acquire(timeout=0.5)
    time.sleep(0.6)
    assert unary(lease, ECHO, b"a") == b"a"
    lease.release()


def test_loose_has_a_bound(server: Server, make_pool: PoolMaker) -> None:
    """`LOOSE` opens `max_overflow` more than `max_size`, and then waits. There, `Loose` dialled without end."""
    pool = make_pool(server.channel, max_size=2, mode=Mode.LOOSE, max_overflow=3)
    leases = [pool.acquire() for _ in range(5)]
    assert connections_to(server.port) == 5
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0.1)
    assert connections_to(server.port) == 5
    for lease in leases:
        lease.release()


def test_an_idle_timeout_of_0_is_refused(server: Server, make_pool: PoolMaker) -> None:
    """`idle_timeout=0` is refused, and `None` reuses for ever. There, 0 silently dialled for each `Get`."""
    with pytest.raises(ValueError, match="idle_timeout = 0"):
        PoolConfig(idle_timeout=0)
    pool = make_pool(server.channel, idle_timeout=None)
    peers = set()
    for _ in range(5):
        with pool.acquire() as lease:
            peers.add(unary(lease, PEER, b""))
    assert len(peers) == 1


def test_the_factory_runs_without_the_lock(make_pool: PoolMaker) -> None:
    """The pool can be used while a factory hangs. There, a slow dial blocked every caller."""
    factory = HangingFactory()
    pool = make_pool(factory)
    waiting = background(pool.acquire)
    assert factory.entered.acquire(timeout=LONG)
    assert pool.stats().opening == 1
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    pool.resize(max_size=3)
    factory.go.set()
    waiting.result(LONG).release()


def test_strict_never_exceeds_max_size(server: Server, make_pool: PoolMaker) -> None:
    """Many threads at once never open more than `max_size`. There, racing `Get`s dialled beyond the cap."""
    pool = make_pool(server.channel, max_size=2, idle_timeout=None)
    seen = []

    def use(_: int) -> None:
        for _ in range(5):
            with pool.acquire(timeout=LONG) as lease:
                unary(lease, ECHO, b"")
                seen.append(pool.stats().size)

    together(20, use)
    assert max(seen) <= 2
    assert connections_to(server.port) <= 2


def test_a_discard_serves_a_waiter(server: Server, make_pool: PoolMaker) -> None:
    """`discard` opens a new connection for a waiter. There, the waiter slept on although there was room."""
    pool = make_pool(server.channel, max_size=1)
    lease = pool.acquire()
    old = unary(lease, PEER, b"")
    waiting = background(lambda: pool.acquire(timeout=None))
    eventually(lambda: pool.stats().waiting == 1)
    lease.discard()
    with waiting.result(LONG) as new:
        assert unary(new, PEER, b"") != old


def test_idle_and_old_connections_close_in_the_background(server: Server, make_pool: PoolMaker) -> None:
    """Age and idleness are checked in the background. There, age was checked on return, and idleness on `Get`."""
    pool = make_pool(server.channel, min_size=1, max_size=3, idle_timeout=0.3)
    leases = [pool.acquire() for _ in range(3)]
    for lease in leases:
        lease.release()
    eventually(lambda: connections_to(server.port) == 1)
    ageing = make_pool(server.channel, min_size=1, max_size=1, max_age=0.3, age_jitter=0)
    ageing.open()
    eventually(lambda: ageing.stats().closed["age"] >= 2)


def test_an_acquire_racing_close_leaves_nothing_open(server: Server) -> None:
    """However acquires and `close()` interleave, nothing is open afterwards. There, one connection could stay open."""
    for _ in range(10):
        pool = ChannelPool(server.channel, PoolConfig(min_size=0, max_size=4))

        def race(i: int, pool: ChannelPool = pool) -> None:
            if i == 0:
                pool.close()
                return
            with contextlib.suppress(PoolClosedError):
                pool.acquire(timeout=LONG).release()

        together(4, race)
        assert pool.stats().size == 0
        with pytest.raises(PoolClosedError):
            pool.acquire()
    eventually(lambda: connections_to(server.port) == 0)


def test_close_leaves_no_thread(server: Server, make_pool: PoolMaker) -> None:
    """No thread of the pool is left after `close()`. There, a ticker loop used up a core."""
    pool = make_pool(server.channel, name="spinner", min_size=2)
    pool.open()
    assert any(thread.name.startswith("grpcpool-spinner") for thread in threading.enumerate())
    pool.close()
    assert not any(thread.name.startswith("grpcpool-spinner") for thread in threading.enumerate())


def test_a_release_racing_close_leaves_nothing_open(server: Server) -> None:
    """However `release()` and `close()` interleave, the connection is closed. There, it went into a closed pool."""
    for _ in range(10):
        pool = ChannelPool(server.channel, PoolConfig(max_size=2))
        leases = [pool.acquire(), pool.acquire()]

        def race(i: int, pool: ChannelPool = pool, leases: list[Lease] = leases) -> None:
            if i == 2:
                pool.close(grace=5)
            else:
                leases[i].release()

        together(3, race)
        assert pool.stats().size == 0
    eventually(lambda: connections_to(server.port) == 0)


def test_overflow_connections_are_closed(server: Server, make_pool: PoolMaker) -> None:
    """An extra connection is closed on its release. There, it stayed for ever."""
    pool = make_pool(server.channel, max_size=1, mode=Mode.LOOSE)
    kept = pool.acquire()
    extra = pool.acquire()
    assert connections_to(server.port) == 2
    extra.release()
    eventually(lambda: connections_to(server.port) == 1)
    assert pool.stats().closed["overflow"] == 1
    kept.release()
    assert pool.stats().idle == 1


def test_a_second_release_does_nothing(server: Server, make_pool: PoolMaker) -> None:
    """The second release does nothing. There, a client closed twice was in the pool twice."""
    pool = make_pool(server.channel, max_size=1)
    first = pool.acquire()
    first.close()
    first.close()
    with pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)


def test_a_failed_open_leaves_nothing_open(server: Server, make_pool: PoolMaker) -> None:
    """If one connection of `open()` fails, the others are closed. There, they stayed open."""
    calls = []

    def factory() -> grpc.Channel:
        calls.append(1)
        if len(calls) < 3:
            return server.channel()
        eventually(lambda: connections_to(server.port) == 2)
        raise ConnectionRefusedError("the third")

    pool = make_pool(factory, min_size=3)
    with pytest.raises(PoolOpenError):
        pool.open()
    eventually(lambda: connections_to(server.port) == 0)
    assert pool.stats().size == 0


def test_a_factory_that_returns_none_takes_no_place(server: Server, make_pool: PoolMaker) -> None:
    """A factory that returns `None` takes no place for ever. There, each nil kept its place."""
    calls = []

    def factory() -> grpc.Channel:
        calls.append(1)
        return None if len(calls) <= 3 else server.channel()  # type: ignore[return-value]

    pool = make_pool(factory, max_size=1)
    with pool.acquire(timeout=LONG) as lease:
        assert unary(lease, ECHO, b"a") == b"a"
    assert pool.stats().open_failures == 3


def test_a_dead_connection_is_not_leased(make_pool: PoolMaker) -> None:
    """A connection that is down is not leased while another can be had. There, it was lent again and again."""
    with Server() as mortal, Server() as other:
        servers = iter([mortal, other])
        pool = make_pool(lambda: next(servers).channel(), min_size=1, max_size=2)
        with pool.acquire() as lease:
            unary(lease, ECHO, b"")
        mortal.kill()
        eventually(lambda: connections_to(mortal.port) == 0)
        eventually(lambda: pool.stats().ready == 0)
        for _ in range(5):
            with pool.acquire(timeout=LONG) as lease:
                assert int(unary(lease, "/test.Test/Pid", b"")) == other.pid


def test_the_factorys_error_is_the_cause(make_pool: PoolMaker) -> None:
    """The factory's own error is the cause of the pool's. There, `ErrDialConn` did not say why."""
    pool = make_pool(failing_factory)
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(PoolTimeoutError) as timed_out:
        pool.acquire(timeout=0.2)
    assert isinstance(timed_out.value.__cause__, ConnectionRefusedError)


# --- its calls ------------------------------------------------------------------------------------------------------


def test_init_is_a_pool_and_open(server: Server, make_pool: PoolMaker) -> None:
    """`Init(factory, init, cap, idleDur, maxLifeDur, timeout, mode)`: afterwards `init` connections are open."""
    pool = make_pool(
        server.channel, min_size=2, max_size=4, idle_timeout=60, max_age=600, close_grace=1, mode=Mode.STRICT
    )
    pool.open()
    assert connections_to(server.port) == 2


def test_default_is_classic(server: Server) -> None:
    """`Default(factory, init, cap)`: 10 s idle, 60 s of life, 10 s at close, and loose."""
    with ChannelPool(server.channel, PoolConfig.classic(2, 3)) as pool:
        pool.open()
        leases = [pool.acquire() for _ in range(5)]
        assert connections_to(server.port) == 5
        for lease in leases:
            lease.release()
        eventually(lambda: connections_to(server.port) == 3)


def test_get_is_acquire(server: Server, make_pool: PoolMaker) -> None:
    """`Get(ctx)`: a whole connection, within a timeout."""
    pool = make_pool(server.channel, max_size=2)
    with pool.acquire(timeout=LONG) as one, pool.acquire(timeout=LONG) as two:
        assert unary(one, PEER, b"") != unary(two, PEER, b"")


def test_strict_waits_and_loose_dials(server: Server, make_pool: PoolMaker) -> None:
    """`PoolGetModeStrict` waits at the cap, `PoolGetModeLoose` opens an extra connection."""
    strict = make_pool(server.channel, max_size=1)
    with strict.acquire(), pytest.raises(PoolTimeoutError):
        strict.acquire(timeout=0.1)
    loose = make_pool(server.channel, max_size=1, mode=Mode.LOOSE)
    with loose.acquire(), loose.acquire(timeout=LONG) as extra:
        assert unary(extra, ECHO, b"a") == b"a"


def test_close_and_destory_are_release_and_discard(server: Server, make_pool: PoolMaker) -> None:
    """`client.Close()` returns the connection, `client.Destory()` closes it."""
    pool = make_pool(server.channel, max_size=1)
    with pool.acquire() as lease:
        first = unary(lease, PEER, b"")
    lease = pool.acquire()
    assert unary(lease, PEER, b"") == first
    lease.discard()
    with pool.acquire() as lease:
        assert unary(lease, PEER, b"") != first
    eventually(lambda: connections_to(server.port) == 1)


def test_time_init_and_time_used_are_created_at_and_used_at(server: Server, make_pool: PoolMaker) -> None:
    """`client.TimeInit()` and `client.TimeUsed()`."""
    pool = make_pool(server.channel, max_size=1)
    pool.acquire().release()
    time.sleep(0.05)
    with pool.acquire() as lease:
        assert lease.created_at < lease.used_at
        first_used = lease.used_at
    with pool.acquire() as lease:
        assert lease.used_at > first_used


def test_size_and_conn_cnt_are_in_stats(server: Server, make_pool: PoolMaker) -> None:
    """`pool.Size()` is `stats().idle`, `ConnCnt()` is `stats().size`, `IsClose()` is `closed`."""
    pool = make_pool(server.channel, min_size=2, max_size=3)
    pool.open()
    with pool.acquire():
        assert (pool.stats().idle, pool.stats().size, pool.closed) == (1, 2, False)
    assert (pool.stats().idle, pool.stats().size, pool.closed) == (2, 2, False)
    pool.close()
    assert (pool.stats().idle, pool.stats().size, pool.closed) == (0, 0, True)
    eventually(lambda: connections_to(server.port) == 0)


def test_its_errors_have_ours(server: Server, make_pool: PoolMaker) -> None:
    """`ErrPoolInit`, `ErrGetTimeout`, `ErrDialConn` and `ErrPoolIsClosed` each have an error class of their own."""
    with pytest.raises(PoolOpenError) as caught:
        make_pool(failing_factory).open()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    pool = make_pool(server.channel, max_size=1)
    with pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0.05)
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.acquire()
    gc.collect()
