"""One interface for threads and asyncio, so that one test makes the same demands of a pool in either world.

A test runs on its own thread and says what is to happen; in a `World`, threads do it, or tasks of a loop that runs in a
thread of its own. Whatever takes time is a future. `Subject` is a pool under test in its world.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import grpc

from grpcpool import PoolConfig, PoolStats
from support.servers import RECONNECT_SOON
from support.waiting import LONG, eventually

# How long a name takes to resolve does not matter: the targets are addresses.
Options = list[tuple[str, Any]]

REPLACED_AFTER = 2.0
"""Seconds after which a lost connection is replaced. On a very busy machine, a server may need as long to start."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How and when one call ended; `caller` is the number of its caller."""

    caller: int
    began: float
    ended: float
    error: BaseException | None
    answer: Any = None

    @property
    def code(self) -> grpc.StatusCode | None:
        """The status of a call that failed."""
        return self.error.code() if isinstance(self.error, grpc.RpcError) else None

    def __str__(self) -> str:
        """Times, code and details, for the message of a failed test."""
        if self.error is None:
            return f"{self.began:.3f}-{self.ended:.3f} well"
        details = self.error.details() if isinstance(self.error, grpc.RpcError) else repr(self.error)
        return f"{self.began:.3f}-{self.ended:.3f} {self.code}: {details}"


def failure_of(call: Future[Any]) -> BaseException:
    """The error of a call that must fail."""
    try:
        answer = call.result(2 * LONG)
    except TimeoutError as error:
        if not call.done():
            raise AssertionError("the call does not end") from error
        return error
    except BaseException as error:  # noqa: BLE001 -- asyncio's cancelling among them
        return error
    raise AssertionError(f"the call ended well: {answer!r}")


class Load(abc.ABC):
    """Callers that call without a pause, from the start of the ``with`` block to its end."""

    def __init__(self, callers: int) -> None:
        """Starts with no outcomes."""
        self.callers = callers
        self.outcomes: list[Outcome] = []
        self._over = threading.Event()
        self._running: list[Future[None]] = []

    @property
    def failed(self) -> list[Outcome]:
        """The calls that failed so far."""
        return [outcome for outcome in list(self.outcomes) if outcome.error is not None]

    def note(self, caller: int, began: float, error: BaseException | None, answer: object = None) -> None:
        """Records the end of a call."""
        ended = time.monotonic()
        if error is not None:
            # It refers to the call, with which gRPC keeps a closed channel's connection, and even reconnects it.
            error.__traceback__ = None
        self.outcomes.append(Outcome(caller=caller, began=began, ended=ended, error=error, answer=answer))

    def wait_for_calls(self, number: int) -> None:
        """Waits until `number` more calls are over."""
        end = len(self.outcomes) + number
        eventually(lambda: len(self.outcomes) >= end)

    def assert_none_failed(self) -> None:
        """No call has failed."""
        assert not self.failed, f"{len(self.failed)} of {len(self.outcomes)}: {self.failed[0]}"

    @abc.abstractmethod
    def start(self) -> list[Future[None]]:
        """Starts the callers."""

    def __enter__(self) -> Self:
        """Starts."""
        self._running = self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends when the last calls have ended."""
        self._over.set()
        for caller in self._running:
            caller.result(3 * LONG)


class Subject(abc.ABC):
    """A pool under test."""

    kinds: tuple[str, ...]
    """The ways to make a call: with one response all but ``stream``, which streams them."""

    def __init__(self, pool: Any) -> None:
        """A subject over this pool."""
        self.pool = pool

    def stats(self) -> PoolStats:
        """A snapshot."""
        stats: PoolStats = self.pool.stats()
        return stats

    @abc.abstractmethod
    def open(self, timeout: float | None = None) -> None:
        """Opens `min_size` connections."""

    @abc.abstractmethod
    def begin(self, method: str, request: bytes, *, kind: str | None = None, **how: Any) -> Future[bytes]:
        """Makes a call in the background; one of kind ``stream`` answers with all its messages joined."""

    @abc.abstractmethod
    def acquire(self, **how: Any) -> Future[Any]:
        """Leases in the background."""

    @abc.abstractmethod
    def release(self, lease: Any) -> None:
        """Releases a lease."""

    @abc.abstractmethod
    def load(self, callers: int, method: str, request: bytes, **how: Any) -> Load:
        """This many callers of unary calls."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the pool, without grace."""

    def do(self, work: Callable[[Any], object]) -> None:
        """Does `work(pool)` where the pool lives."""
        work(self.pool)

    def call(self, method: str, request: bytes, **how: Any) -> bytes:
        """Makes a call and waits for it."""
        return self.begin(method, request, **how).result(2 * LONG)

    def assert_at_rest(self) -> None:
        """Nothing is in flight, and nothing waits."""
        eventually(lambda: (self.stats().in_flight, self.stats().waiting) == (0, 0), timeout=5)


class World(abc.ABC):
    """Where pools live: with threads, or in a loop."""

    name: str

    @abc.abstractmethod
    def channel_maker(self, target: str) -> Callable[[], Any]:
        """A factory for pools, of isolated channels that reconnect soon."""

    @abc.abstractmethod
    def fake_maker(self, **how: Any) -> Any:
        """A factory of fake channels, which keeps a list of them."""

    @abc.abstractmethod
    def _over_target(self, target: str, options: Options, config: PoolConfig, **how: Any) -> Subject: ...

    @abc.abstractmethod
    def _over_factory(self, factory: Callable[[], Any], config: PoolConfig) -> Subject: ...

    @contextlib.contextmanager
    def pool(
        self, target: str, *, options: Options | None = None, how: dict[str, Any] | None = None, **config: Any
    ) -> Iterator[Subject]:
        """A drop-in pool; at the end of the block it must be at rest, and is closed.

        Args:
            target: Where it leads.
            options: For its channels; by default they reconnect soon.
            how: More of what its constructor takes; with `credentials` it is a secure channel.
            config: `PoolConfig`'s.
        """
        given = RECONNECT_SOON if options is None else options
        yield from _used(self._over_target(target, given, PoolConfig(**config), **(how or {})))

    @contextlib.contextmanager
    def pool_over(self, factory: Callable[[], Any], **config: Any) -> Iterator[Subject]:
        """Same as `pool`, over a factory."""
        yield from _used(self._over_factory(factory, PoolConfig(**config)))


def _used(subject: Subject) -> Iterator[Subject]:
    try:
        yield subject
        subject.assert_at_rest()
    finally:
        subject.close()
    assert subject.stats().size == 0
