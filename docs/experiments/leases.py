"""Measures leases of whole connections beside those of other pools for Python.

``python docs/experiments/leases.py`` measures, writes ``leases.csv`` and draws it; with ``--draw`` it only draws the
existing file. The other pools are in the dependency group `experiments`. All pools hold fake connections, so that only
the pools are measured. Each is measured uncontended, by threads that hold one of 4 connections for a millisecond, and
by tasks that do so with one of 10. In each round the pools take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import pathlib
import queue
import statistics
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self

from experiment import chunks, main, markdown, percentile, pyplot, read

import grpcpool.aio
import grpcpool.testing.aio

DATA = pathlib.Path(__file__).with_suffix(".csv")
PLACES, AIO_PLACES = 4, 10
THREADS, TASKS = (8, 64), 1000
ROUNDS, PAIRS = 15, 5000
HOLD, WARM_UP, MEASURED = 0.001, 0.2, 1.5
AIO_MEASURED = 3.0
PATIENCE = 60.0
OURS, ORDERED = "grpcpool", "psycopg_pool"
UNCONTENDED, OF_TASKS = "uncontended", f"{TASKS:,} tasks, {AIO_PLACES} connections"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One pool in one case and round.

    Attributes:
        leases: How many began within the measured time.
        starved: How many of the threads or tasks got no connection within the measured time.
        p50_us: Of the waits, the times that acquires take. A wait counts if it ends in the measured time or later.
        longest_by_mean: The longest wait, in means.
    """

    case: str
    pool: str
    round: int
    leases: int
    per_second: int
    starved: int
    p50_us: float
    p99_us: float
    longest_by_mean: float


# --- the pools --------------------------------------------------------------------------------------------------------

Use = tuple[Callable[[], Any], Callable[[Any], object]]
AioUse = tuple[Callable[[], Awaitable[Any]], Callable[[Any], Any]]


class FakeConnection:
    """A connection as SQLAlchemy and psycopg_pool expect one; it does nothing."""

    autocommit = True
    closed = False

    def __init__(self) -> None:
        """Is open, and in no transaction."""
        self.pgconn: Any = None
        self._pool: Any = None

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Returns a new one, for psycopg_pool."""
        del conninfo, options
        return cls.idle()

    @classmethod
    def idle(cls) -> Self:
        """Returns one as psycopg_pool expects it: in no transaction."""
        from psycopg.pq import TransactionStatus  # noqa: PLC0415 (only these experiments need it)

        result = cls()
        result.pgconn = types.SimpleNamespace(transaction_status=TransactionStatus.IDLE)
        return result

    def rollback(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class AioFakeConnection(FakeConnection):
    """The same for asyncio."""

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:  # type: ignore[override]
        """Returns a new one."""
        del conninfo, options
        return cls.idle()

    async def close(self) -> None:  # type: ignore[override]
        """Does nothing."""


@contextlib.contextmanager
def ours() -> Iterator[Use]:
    """Our pool."""
    config = grpcpool.PoolConfig(min_size=PLACES, max_size=PLACES)
    with grpcpool.ChannelPool(grpcpool.testing.FakeFactory(), config) as pool:
        pool.open()
        yield pool.acquire, lambda lease: lease.release()


@contextlib.contextmanager
def lifo_queue() -> Iterator[Use]:
    """The standard library's queue."""
    free: queue.LifoQueue[object] = queue.LifoQueue()
    for _ in range(PLACES):
        free.put(object())
    yield lambda: free.get(timeout=PATIENCE), free.put


@contextlib.contextmanager
def sqlalchemy() -> Iterator[Use]:
    """SQLAlchemy's pool; nothing is rolled back at a release."""
    from sqlalchemy.pool import QueuePool  # noqa: PLC0415 (only these experiments need it)

    # Their types ask for whole connections.
    create: Any = FakeConnection
    pool = QueuePool(create, pool_size=PLACES, max_overflow=0, timeout=PATIENCE, reset_on_return=None)
    yield pool.connect, lambda connection: connection.close()
    pool.dispose()


@contextlib.contextmanager
def psycopg_pool() -> Iterator[Use]:
    """The pool of psycopg."""
    from psycopg_pool import ConnectionPool  # noqa: PLC0415 (only these experiments need it)

    connection_class: Any = FakeConnection
    with ConnectionPool(
        connection_class=connection_class, min_size=PLACES, max_size=PLACES, timeout=PATIENCE, open=False
    ) as pool:
        pool.wait()
        yield pool.getconn, pool.putconn


@contextlib.contextmanager
def connpool() -> Iterator[Use]:
    """A generic pool."""
    from connpool import ConnectionPool, PoolConfig  # noqa: PLC0415 (only these experiments need it)

    config = PoolConfig(max_size=PLACES, acquire_timeout=PATIENCE)
    with ConnectionPool.from_callables(FakeConnection, config=config) as pool:
        yield pool.acquire, pool.release


@contextlib.contextmanager
def generic() -> Iterator[Use]:
    """A generic pool, by endpoints."""
    from generic_connection_pool import threading as generic_threading  # noqa: PLC0415 (only these experiments need it)

    class Manager(generic_threading.BaseConnectionManager[str, FakeConnection]):
        def create(self, *_: Any, **__: Any) -> FakeConnection:
            return FakeConnection()

        def dispose(self, *_: Any, **__: Any) -> None:
            pass

    pool: Any = generic_threading.ConnectionPool(
        Manager(), max_size=PLACES, total_max_size=PLACES, idle_timeout=PATIENCE, max_lifetime=PATIENCE
    )
    yield lambda: pool.acquire("endpoint"), lambda connection: pool.release(connection, "endpoint")
    pool.close()


@contextlib.asynccontextmanager
async def aio_ours() -> AsyncIterator[AioUse]:
    """Our pool."""
    config = grpcpool.PoolConfig(min_size=AIO_PLACES, max_size=AIO_PLACES)
    async with grpcpool.aio.ChannelPool(grpcpool.testing.aio.FakeFactory(), config) as pool:
        await pool.open()

        async def acquire() -> Any:
            return await pool.acquire()

        yield acquire, lambda lease: lease.release()


@contextlib.asynccontextmanager
async def aio_lifo_queue() -> AsyncIterator[AioUse]:
    """The standard library's queue."""
    free: asyncio.LifoQueue[object] = asyncio.LifoQueue()
    for _ in range(AIO_PLACES):
        free.put_nowait(object())
    yield free.get, free.put_nowait


@contextlib.asynccontextmanager
async def aio_psycopg_pool() -> AsyncIterator[AioUse]:
    """The pool of psycopg."""
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415 (only these experiments need it)

    connection_class: Any = AioFakeConnection
    async with AsyncConnectionPool(
        connection_class=connection_class,
        min_size=AIO_PLACES,
        max_size=AIO_PLACES,
        timeout=PATIENCE,
        open=False,
    ) as pool:
        await pool.wait()
        yield pool.getconn, pool.putconn


@contextlib.asynccontextmanager
async def aio_connpool() -> AsyncIterator[AioUse]:
    """A generic pool."""
    from connpool import AsyncConnectionPool, PoolConfig  # noqa: PLC0415 (only these experiments need it)

    config = PoolConfig(max_size=AIO_PLACES, acquire_timeout=PATIENCE)
    async with AsyncConnectionPool.from_callables(FakeConnection, config=config) as pool:
        yield pool.acquire, pool.release


@contextlib.asynccontextmanager
async def aio_generic() -> AsyncIterator[AioUse]:
    """A generic pool, by endpoints."""
    from generic_connection_pool import asyncio as generic_asyncio  # noqa: PLC0415 (only these experiments need it)

    class Manager(generic_asyncio.BaseConnectionManager[str, FakeConnection]):
        async def create(self, *_: Any, **__: Any) -> FakeConnection:
            return FakeConnection()

        async def dispose(self, *_: Any, **__: Any) -> None:
            pass

    pool: Any = generic_asyncio.ConnectionPool(
        Manager(), max_size=AIO_PLACES, total_max_size=AIO_PLACES, idle_timeout=PATIENCE, max_lifetime=PATIENCE
    )
    yield lambda: pool.acquire("endpoint"), lambda connection: pool.release(connection, "endpoint")
    await pool.close()


@contextlib.asynccontextmanager
async def aio_connection_pool() -> AsyncIterator[AioUse]:
    """A pool for asyncio, whose leases are context managers only."""
    from asyncio_connection_pool import ConnectionPool, ConnectionStrategy  # noqa: PLC0415 (only these need it)

    class Strategy(ConnectionStrategy[FakeConnection]):
        async def make_connection(self) -> FakeConnection:
            return FakeConnection()

        def connection_is_closed(self, conn: FakeConnection) -> bool:
            return conn.closed

        async def close_connection(self, conn: FakeConnection) -> None:
            conn.close()

    pool: Any = ConnectionPool(strategy=Strategy(), max_size=AIO_PLACES)

    async def acquire() -> Any:
        lease = pool.get_connection()
        await lease.__aenter__()
        return lease

    yield acquire, lambda lease: lease.__aexit__(None, None, None)


POOLS: dict[str, Callable[[], contextlib.AbstractContextManager[Use]]] = {
    OURS: ours,
    ORDERED: psycopg_pool,
    "SQLAlchemy's QueuePool": sqlalchemy,
    "connpool": connpool,
    "generic-connection-pool": generic,
    "queue.LifoQueue": lifo_queue,
}
AIO_POOLS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[AioUse]]] = {
    OURS: aio_ours,
    ORDERED: aio_psycopg_pool,
    "connpool": aio_connpool,
    "generic-connection-pool": aio_generic,
    "asyncio-connection-pool": aio_connection_pool,
    "asyncio.LifoQueue": aio_lifo_queue,
}


# --- measuring --------------------------------------------------------------------------------------------------------


class Waits:
    """The waits of one caller after the other; they count if they end after the warm-up."""

    def __init__(self, measured: float) -> None:
        """Begins with the warm-up."""
        self.begins = time.perf_counter() + WARM_UP
        self.ends = self.begins + measured
        self._measured = measured
        self._waits: list[float] = []
        self._leases: list[int] = []

    def caller(self) -> Callable[[float, float], None]:
        """Returns what a new caller calls after each wait, with its beginning and end."""
        number = len(self._leases)
        self._leases.append(0)

        def note(asked: float, got: float) -> None:
            if got >= self.begins:
                self._waits.append(got - asked)
                self._leases[number] += got < self.ends

        return note

    def row(self, case: str, pool: str, number: int) -> Row:
        """Returns all as a row."""
        leases = sum(self._leases)
        return Row(
            case=case,
            pool=pool,
            round=number,
            leases=leases,
            per_second=round(leases / self._measured),
            starved=self._leases.count(0),
            p50_us=round(1e6 * percentile(self._waits, 50), 2),
            p99_us=round(1e6 * percentile(self._waits, 99), 2),
            longest_by_mean=round(max(self._waits) / statistics.fmean(self._waits), 2),
        )


def uncontended(name: str, number: int) -> Row:
    """Acquires and releases in one thread."""
    clock = time.perf_counter
    with POOLS[name]() as (acquire, release):
        for _ in range(PAIRS):
            release(acquire())
        waits = []
        for _ in range(PAIRS):
            began = clock()
            connection = acquire()
            waits.append(clock() - began)
            release(connection)
        began = clock()
        for _ in range(PAIRS):
            release(acquire())
        per_second = round(PAIRS / (clock() - began))
    return Row(
        case=UNCONTENDED,
        pool=name,
        round=number,
        leases=PAIRS,
        per_second=per_second,
        starved=0,
        p50_us=round(1e6 * percentile(waits, 50), 2),
        p99_us=round(1e6 * percentile(waits, 99), 2),
        longest_by_mean=round(max(waits) / statistics.fmean(waits), 2),
    )


def by_threads(name: str, threads: int, number: int) -> Row:
    """Lets threads hold a connection for a moment, again and again."""
    clock = time.perf_counter
    with POOLS[name]() as (acquire, release):
        waits = Waits(MEASURED)

        def work(note: Callable[[float, float], None]) -> None:
            while (asked := clock()) < waits.ends:
                connection = acquire()
                note(asked, clock())
                time.sleep(HOLD)
                release(connection)

        workers = [threading.Thread(target=work, args=(waits.caller(),)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return waits.row(f"{threads} threads, {PLACES} connections", name, number)


async def by_tasks(name: str, number: int) -> Row:
    """Lets tasks hold a connection for a moment, again and again."""
    clock = time.perf_counter
    async with AIO_POOLS[name]() as (acquire, release):
        waits = Waits(AIO_MEASURED)

        async def work(note: Callable[[float, float], None]) -> None:
            while (asked := clock()) < waits.ends:
                connection = await acquire()
                note(asked, clock())
                await asyncio.sleep(HOLD)
                released = release(connection)
                if released is not None:
                    await released

        await asyncio.gather(*[work(waits.caller()) for _ in range(TASKS)])
    return waits.row(OF_TASKS, name, number)


def rows() -> Iterator[Row]:
    """Measures everything; the pools take turns, so that other load on the machine affects all of them."""
    for number in range(1, ROUNDS + 1):
        for name in POOLS:
            yield uncontended(name, number)
        for threads, name in itertools.product(THREADS, POOLS):
            yield by_threads(name, threads, number)
        for name in AIO_POOLS:
            yield asyncio.run(by_tasks(name, number))


# --- drawing ----------------------------------------------------------------------------------------------------------


def medians() -> dict[str, dict[str, dict[str, float]]]:
    """Returns the medians of the rounds by case and pool."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    names = ("per_second", "starved", "p50_us", "p99_us", "longest_by_mean")
    for (case, pool), rounds in chunks(read(DATA), "case", "pool"):
        result.setdefault(case, {})[pool] = {
            name: statistics.median(float(one[name]) for one in rounds) for name in names
        }
    return result


def draw() -> None:
    """Draws the file into ``leases.svg``."""
    plt = pyplot(DATA.stem)
    found = medians()
    figure, axes = plt.subplots(2, len(found), figsize=(14, 6), layout="constrained")
    for number, (case, pools) in enumerate(found.items()):
        colours = ["tab:blue" if pool == OURS else "tab:grey" for pool in pools]
        titles = {"per_second": "leases a second", "p99_us": "p99 of the wait, ms"}
        for axis, (name, title) in zip(axes[:, number], titles.items(), strict=True):
            values = [figures[name] / (1000 if name == "p99_us" else 1) for figures in pools.values()]
            axis.barh([*pools], values, color=colours)
            axis.invert_yaxis()
            axis.set(title=case if name == "per_second" else "", xlabel=title)
            axis.grid(axis="x", alpha=0.3)
            if 0 < number < len(found) - 1:
                # As in the first case.
                axis.set(yticklabels=[])
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page: medians of the rounds."""
    lines = []
    for case, pools in medians().items():
        for pool, figures in pools.items():
            p50, p99 = (
                f"{figures[name]:.1f} µs" if case == UNCONTENDED else f"{figures[name] / 1000:.1f} ms"
                for name in ("p50_us", "p99_us")
            )
            fairness = [f"{figures['longest_by_mean']:.1f}", f"{figures['starved']:.0f}"]
            if case == UNCONTENDED:
                fairness = ["", ""]
            lines.append([case, pool, f"{figures['per_second']:,.0f}", p50, p99, *fairness])
    return markdown(["case", "pool", "leases a second", "p50", "p99", "longest / mean", "never served"], lines)


if __name__ == "__main__":
    main("Measures leases beside those of other pools.", DATA, rows, draw, table)
