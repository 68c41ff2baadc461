"""Pools in forked children. Each test is a program of its own, because a fork copies the whole process."""

from __future__ import annotations

import os
import textwrap

import pytest

from grpcpool._grpc.version import GRPC_RELEASE
from support.programs import run_python
from support.servers import Server

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]

_PRELUDE = """
import gc, multiprocessing, os, sys, threading, time, traceback
import grpc
import grpcpool
from grpcpool._grpc.version import GRPC_RELEASE
from support.connections import connections_to
from support.servers import COUNT, ECHO, PEER, unary
from support.waiting import eventually

target = sys.argv[1]
port = int(target.rpartition(":")[2])


def factory():
    return grpc.insecure_channel(target, grpcpool.isolated())


def fork(work, exit=os._exit):
    '''Runs work in a child; returns the child's exit code, 0 if all went well.'''
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(7)
    exit(0)


"""


def _run(server: Server, program: str, **environment: str) -> None:
    """Runs a program in a fresh interpreter; it must end with code 0 and print `fine`."""
    done = run_python(_PRELUDE + textwrap.dedent(program), server.target, environment=environment)
    assert done.stdout.split() == ["fine"], done.stdout + done.stderr


def test_a_child_starts_empty_and_works(server: Server) -> None:
    """A child starts without connections, opens and closes its own; the parent's stay open, with their leases."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory, grpcpool.PoolConfig(min_size=2))
        pool.open()
        with pool.acquire() as lease:
            before = unary(lease, PEER, b"")

        def child():
            stats = pool.stats()
            assert (stats.size, stats.in_flight, stats.acquired) == (0, 0, 0), stats
            assert not pool.closed
            with pool.acquire(timeout=10) as lease:
                assert unary(lease, PEER, b"") != before
            pool.open()
            assert pool.stats().ready == 2
            pool.close()

        assert fork(child) == 0
        assert pool.stats().ready == 2
        assert connections_to(port) == 2
        for _ in range(20):
            with pool.acquire() as lease:
                assert unary(lease, ECHO, b"a") == b"a"
        assert pool.stats().opened == 2
        pool.close()
        print("fine")
        """,
    )


@pytest.mark.parametrize("closes", ["closes", "does not close"])
def test_a_child_exits_normally(server: Server, closes: str) -> None:
    """A child exits through the interpreter with code 0, whether or not it closes its pool."""
    _run(
        server,
        f"""
        pool = grpcpool.ChannelPool(factory, grpcpool.PoolConfig(min_size=2))
        pool.open()
        held = pool.acquire()

        def child():
            with pool.acquire(timeout=10) as lease:
                assert unary(lease, ECHO, b"a") == b"a"
            if {closes == "closes"}:
                pool.close()

        pid = os.fork()
        if not pid:
            child()
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        held.release()
        pool.close()
        print("fine")
        """,
    )


def test_subscriptions_from_before_the_fork_work_in_the_child(server: Server) -> None:
    """Subscriptions made before the fork report the state of the child's own pool, once it is used."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)
        told = []
        pool.subscribe(told.append)
        pool.open()

        def child():
            told.clear()
            pool.acquire(timeout=10).release()
            deadline = time.monotonic() + 20
            while grpc.ChannelConnectivity.READY not in told and time.monotonic() < deadline:
                time.sleep(0.01)
            pool.close()
            assert grpc.ChannelConnectivity.READY in told, told

        assert fork(child) == 0
        pool.close()
        print("fine")
        """,
    )


def test_a_lease_held_across_the_fork_is_void_in_the_child(server: Server) -> None:
    """In the child, calls on the lease raise `PoolForkedError`, also by earlier stubs; its release has no effect."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory, grpcpool.PoolConfig(max_size=1), name="orders")
        lease = pool.acquire()
        echo = lease.unary_unary(ECHO)
        shared = grpcpool.ChannelPool(factory)
        dropped = [shared.acquire(streams=1)]

        def child():
            for use in (
                lambda: echo(b"a", timeout=10),
                lambda: echo.future(b"a", timeout=10),
                lambda: echo.with_call(b"a", timeout=10),
                lambda: lease.unary_unary(ECHO),
                lambda: lease.stream_stream(ECHO),
                lambda: lease.subscribe(print),
            ):
                try:
                    use()
                except grpcpool.PoolForkedError as error:
                    assert "'orders'" in str(error), error
                    assert "1 of 1 connections open, 1 in flight, 0 waiting" in str(error), error
                else:
                    raise AssertionError("the lease worked in the child")
            lease.release()
            lease.discard()
            lease.close()
            dropped.clear()
            gc.collect()
            assert pool.stats().in_flight == 0
            with pool.acquire(timeout=10) as own:
                assert unary(own, ECHO, b"a") == b"a"
            repr(lease), lease.created_at
            pool.close()
            shared.close()

        assert fork(child) == 0
        assert pool.stats().in_flight == 1
        assert echo(b"a", timeout=10) == b"a"
        assert unary(dropped[0], ECHO, b"b") == b"b"
        lease.release()
        dropped.pop().release()
        pool.close()
        shared.close()
        print("fine")
        """,
    )


@pytest.mark.skipif(
    GRPC_RELEASE < (1, 80),
    reason="before 1.80 gRPC itself may hang in a child that was forked while another thread was inside gRPC",
)
def test_a_fork_while_threads_use_the_pool(server: Server) -> None:
    """Whatever the parent's threads were doing, and whichever locks they held, the child works."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory, grpcpool.PoolConfig(max_size=2, leak_threshold=100.0))
        pool.open()
        over = threading.Event()

        def use():
            while not over.is_set():
                pool.acquire(timeout=30, streams=1).release()
                pool.stats()

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()

        def child():
            pool.acquire(timeout=10).release()
            with pool.acquire(timeout=10) as lease:
                assert unary(lease, ECHO, b"a") == b"a"
            pool.close()

        for _ in range(10):
            assert fork(child) == 0
        over.set()
        for thread in threads:
            thread.join()
        pool.close()
        print("fine")
        """,
    )


def test_a_child_of_a_child_works(server: Server) -> None:
    """Each generation of processes has its own connections."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)
        with pool.acquire() as lease:
            unary(lease, ECHO, b"")

        def grandchild():
            with pool.acquire(timeout=10) as lease:
                assert unary(lease, ECHO, b"a") == b"a"
            pool.close()

        def child():
            with pool.acquire(timeout=10) as lease:
                unary(lease, ECHO, b"")
            assert fork(grandchild) == 0
            with pool.acquire(timeout=10) as lease:
                unary(lease, ECHO, b"")
            pool.close()

        assert fork(child) == 0
        pool.close()
        print("fine")
        """,
    )


def test_a_closed_pool_is_closed_in_the_child(server: Server) -> None:
    """A fork does not reopen a closed pool."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)
        pool.open()
        pool.close()

        def child():
            assert pool.closed
            try:
                pool.acquire(timeout=1)
            except grpcpool.PoolClosedError:
                return
            raise AssertionError("a closed pool was open in the child")

        assert fork(child) == 0
        print("fine")
        """,
    )


def test_bounds_changed_before_the_fork_hold_in_the_child(server: Server) -> None:
    """The bounds set by `resize` hold in the child."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)
        pool.open()
        pool.resize(min_size=2, max_size=3)
        # Waits for the new connection: gRPC does not survive a fork while another thread connects.
        pool.open()

        def child():
            assert (pool.stats().min_size, pool.stats().max_size) == (2, 3), pool.stats()
            pool.close()

        assert fork(child) == 0
        pool.close()
        print("fine")
        """,
    )


def test_multiprocessing_by_fork(server: Server) -> None:
    """Workers of `multiprocessing` with the fork method can use the inherited pool."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)

        def work(number):
            with pool.acquire(timeout=10) as lease:
                return unary(lease, ECHO, str(number).encode())

        assert work(0) == b"0"
        with multiprocessing.get_context("fork").Pool(2) as workers:
            assert workers.map(work, range(10)) == [str(i).encode() for i in range(10)]
        process = multiprocessing.get_context("fork").Process(target=work, args=(1,))
        process.start()
        process.join(30)
        assert process.exitcode == 0, process.exitcode
        assert work(2) == b"2"
        pool.close()
        print("fine")
        """,
    )


def test_with_grpcs_fork_support_switched_on(server: Server) -> None:
    """With `GRPC_ENABLE_FORK_SUPPORT=1` parent and child work, too."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory)
        with pool.acquire() as lease:
            unary(lease, ECHO, b"")

        def child():
            with pool.acquire(timeout=10) as lease:
                assert unary(lease, ECHO, b"a") == b"a"
            pool.close()

        assert fork(child) == 0
        with pool.acquire(timeout=10) as lease:
            assert unary(lease, ECHO, b"a") == b"a"
        pool.close()
        print("fine")
        """,
        GRPC_ENABLE_FORK_SUPPORT="1",
    )


def test_a_program_that_forgets_to_close_ends(server: Server) -> None:
    """An interpreter ends with code 0 and without output although a pool, a lease and a stream are still open."""
    _run(
        server,
        """
        pool = grpcpool.ChannelPool(factory, grpcpool.PoolConfig(min_size=2))
        pool.open()
        with pool.acquire() as lease:
            stream = lease.unary_stream("/test.Test/Count")(b"1000,10", timeout=30)
            assert next(stream) == b"0"
        print("fine")
        """,
    )


def test_a_stream_that_only_its_reader_watches(server: Server) -> None:
    """A child that drops the parent's stream does nothing to it, and takes what is left of its own."""
    _run(
        server,
        """
        options = grpcpool.isolated([("SingleThreadedUnaryStream", 1)])
        pool = grpcpool.ChannelPool(lambda: grpc.insecure_channel(target, options), grpcpool.PoolConfig(max_size=1))
        held = [pool.unary_stream(COUNT)(b"1000,10")]
        assert next(held[0]) == b"0"

        def child():
            held.clear()
            own = pool.unary_stream(COUNT)(b"1000,10")
            assert next(own) == b"0"
            # The parent's connection is open here, too.
            opened = connections_to(port)
            del own
            gc.collect()
            pool.close()
            eventually(lambda: connections_to(port) < opened)

        assert fork(child) == 0
        assert next(held[0]) == b"1"
        held.clear()
        gc.collect()
        pool.close()
        eventually(lambda: connections_to(port) == 0)
        print("fine")
        """,
    )
