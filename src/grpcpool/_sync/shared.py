"""Handles on pools that a process shares, for threads: `shared_channel`."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import grpc

from .._grpc.blocking_calls import cancel_blocking
from .._grpc.client_modules import is_within_call
from .._grpc.short_tracebacks import drop_frames_below
from .._machine.queue import Waiter
from .._shared.announcer import logger
from .._shared.arguments import Arguments
from .._shared.finalizers import MAY_BE_OTHERS, interrupts
from .._shared.fork import watch_for_fork
from .._shared.pool_base import CONFIGURED, Configured
from .._shared.recipe import Credentials, Recipe
from .._shared.sharing import LINGERS_FOR, Calls, HandleBase, Shared, SharedPools, is_in_use
from .._shared.targets import check_credentials, recipe_of
from .._shared.thread_start import NoThreadError, new_thread, start
from .._values.config import PoolConfig
from .arguments import Caller
from .call import PoolCall
from .call_end import close_early, is_over
from .call_stages import Running, Waiting
from .factories import pool_of
from .lease import Lease
from .multicallables import UnaryUnary
from .pool import ChannelPool
from .subscriptions import Callback
from .waiter import BlockedOpenWaiter, BlockedWaiter

if TYPE_CHECKING:
    from types import FrameType

    from .._shared.methods import Method

# Between two looks at calls that are to end.
_LOOKS_EVERY = 0.005

# A cancelled call ends at once. One that gRPC does not let the handle cancel is not waited for longer.
_PATIENCE = 1.0


def shared_channel(
    target: str | Sequence[str],
    credentials: Credentials | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
) -> ChannelPool:
    """A handle on this process's one pool for these arguments.

    Use it where each request, task or client creates a channel of its own: all of them share the connections.

    Args:
        target: As for `insecure_channel`.
        credentials: `None` for an insecure channel; else as for `secure_channel`. The same object, or an equal
            callable, leads to the same pool.
        options: As for `insecure_channel`.
        compression: As for `insecure_channel`.
        config: As for `insecure_channel`.
        name: As for `insecure_channel`.

    Returns:
        A `ChannelPool`, and so a `grpc.Channel`. Its `close()` refuses its own further calls, cancels those in flight,
        and releases its own leases; other handles go on. The pool is closed two seconds after its last handle has been
        closed or collected.

    Raises:
        TypeError: As for `secure_channel`.
        ValueError: As for `insecure_channel`.
    """
    if credentials is not None:
        check_credentials(credentials)
    return handle_from(recipe_of(target, credentials, options, compression, config=config, name=name))


def handle_from(recipe: Recipe, interceptors: object = ()) -> PoolHandle:  # noqa: ARG001 -- see asyncio's twin
    """A new handle on the shared pool for these arguments."""
    return PoolHandle(recipe)


class PoolHandle(HandleBase, ChannelPool):
    """A channel of its own over a pool that others use as well. `ChannelPool` describes what it offers."""

    _shown_as = "handle on grpcpool.ChannelPool"

    def __init__(self, recipe: Recipe) -> None:
        """Is a handle on the shared pool for these arguments."""
        HandleBase.__init__(self, recipe, _pools)
        # Each callback, and what has subscribed for it: others may subscribe an equal one.
        self._subscribed: list[tuple[Callback, Callback]] = []
        self._begin_to_follow()
        self._drop = weakref.finalize(self, _dropped, self._shared.reference(), self._token, self._subscribed)
        self._drop.atexit = False
        watch_for_fork(self)

    def _begin_to_follow(self) -> None:
        # The threads that one of its calls or requests blocks.
        self._blocked: dict[object, int] = {}
        self._calls, self._leases = Calls(), Calls()

    def _after_fork_in_child(self) -> Any:
        """In a forked child: nothing of it is in flight. Returns what must be kept untouched."""
        old = (self._blocked, self._calls, self._leases)
        self._begin_to_follow()
        return old

    # --- what is followed ---------------------------------------------------------------------------------------

    @contextmanager
    def _blocks(self) -> Iterator[None]:
        """The current thread waits for something of this handle during the ``with`` block."""
        token = object()
        self._blocked[token] = get_ident()
        try:
            self._check_open()
            yield
        finally:
            del self._blocked[token]

    def acquire(self, timeout: float | Configured | None = CONFIGURED, *, streams: int | None = None) -> Lease:
        """Same as `ChannelPool.acquire`."""
        with self._blocks():
            lease: Lease = self._pool.acquire(timeout, streams=streams)
        lease._pool = self
        self._leases.add(lease)
        if self._closed:
            lease.release()
            raise self._closed_error()
        return lease

    def open(self, timeout: float | None = None) -> None:
        """Same as `ChannelPool.open`."""
        with self._blocks():
            self._pool.open(timeout)

    _unary_unary = UnaryUnary

    def _caller(self, kind: str, *arguments: Any) -> Caller:
        return HandleCaller(self, self._pool._caller(kind, *arguments))

    def _caller_of_lease(self, caller: Caller) -> Caller:
        return HandleCaller(self, caller)

    def subscribe(self, callback: Callback, try_to_connect: bool | None = False) -> None:
        """Same as `ChannelPool.subscribe`."""
        if not self._closed:
            own = partial(callback)
            self._subscribed.append((callback, own))
            self._pool.subscribe(own, try_to_connect)
            if self.closed:
                # Meanwhile.
                self._pool.unsubscribe(own)

    def unsubscribe(self, callback: Callback) -> None:
        """Same as `ChannelPool.unsubscribe`."""
        for index, (other, own) in enumerate(self._subscribed):
            if other == callback:
                del self._subscribed[index]
                self._pool.unsubscribe(own)
                break

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, grace: float | None = None) -> None:
        """Closes this handle; the pool goes on for others, see `shared_channel`. Idempotent.

        Args:
            grace: Seconds that the calls and leases of this handle have to end; `PoolConfig.close_grace` if not given.
        """
        seconds = self._grace(grace)
        self._closed = True
        if interrupts(self._driver, MAY_BE_OTHERS):
            self._driver.defer(self._end)
            return
        waits = not (is_within_call() or self._driver.void)
        try:
            if waits:
                self._until_nothing_runs(seconds, lambda: None)
            self._cancel()
            if waits:
                # A thread may have been about to begin its call.
                self._until_nothing_runs(_PATIENCE, self._cancel)
        finally:
            self._leave()

    def _end(self) -> None:
        """The rest of a `close()` that does not wait."""
        try:
            self._cancel()
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._subscribed:
            self._pool.unsubscribe(self._subscribed.pop()[1])
        if self._drop.alive:
            _pools.released(self._shared, self._token)
            # If a signal handler has raised before, it is released once more, which does no harm.
            self._drop.detach()

    def _until_nothing_runs(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        until = time.monotonic() + seconds
        while self._runs() and time.monotonic() < until:
            time.sleep(_LOOKS_EVERY)
            meanwhile()

    def _runs(self) -> bool:
        return bool(self._threads() or self._calls.in_flight(is_over) or self._leases.in_flight(_is_released))

    def _threads(self) -> set[int]:
        return set(self._blocked.copy().values()) - {get_ident()}

    def _blocks_in(self, frame: FrameType) -> bool:
        """Whether this is the frame in which a call of this handle blocks its thread."""
        return frame.f_code is HandleCaller.block.__code__ and frame.f_locals["self"]._handle is self

    def _cancel(self) -> None:
        threads, driver = self._threads(), self._driver
        calls = self._calls.in_flight(is_over)
        waiting = {call._stage for call in calls if isinstance(call, PoolCall)}
        with driver.lock:
            machine = driver.machine
            waiters = [each for each in machine.queue if each in waiting or _waits_in(each, threads)]
            openers = [each for each in machine.openers if isinstance(each, BlockedOpenWaiter)]
        driver.refuse_all(waiters, self._closed_error)
        for opener in openers:
            if opener.thread in threads:
                driver.tell(machine.cancel_open, opener)
                opener.refused(self._closed_error())
        for call in calls:
            stage = call._stage if isinstance(call, PoolCall) else None
            if not isinstance(stage, Waiting):
                with suppress(Exception):
                    # What an interceptor returned may raise anything.
                    close_early(stage.native if isinstance(stage, Running) else call)
        cancel_blocking(self._threads(), self._blocks_in)
        for lease in self._leases.in_flight(_is_released):
            lease.release()


def _waits_in(waiter: Waiter, threads: set[int]) -> bool:
    return isinstance(waiter, BlockedWaiter) and waiter.thread in threads


def _is_released(lease: Lease) -> bool:
    return lease._released


class HandleCaller:
    """Runs the calls of one method over a handle, which follows them."""

    __slots__ = ("_caller", "_handle")

    def __init__(self, handle: PoolHandle, caller: Caller) -> None:
        """Runs them through `caller`, of the pool or of a lease."""
        self._handle = handle
        self._caller = caller

    def origin(self) -> tuple[Any, Method]:
        """The handle, and the method."""
        _, method = self._caller.origin()
        return self._handle, method

    def block(self, how: str, *arguments: Any) -> Any:
        """Runs a call until it is over."""
        handle, token = self._handle, object()
        blocked = handle._blocked
        blocked[token] = get_ident()
        try:
            if handle._closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            return self._caller.block(how, *arguments)
        except grpc.RpcError as error:
            drop_frames_below(error)
            raise
        finally:
            del blocked[token]

    def begin(self, how: str, arguments: Arguments) -> Any:
        """Begins a call."""
        handle, token = self._handle, object()
        blocked = handle._blocked
        blocked[token] = get_ident()
        try:
            if handle._closed:
                raise ValueError("Cannot invoke RPC: Channel closed!")
            call = self._caller.begin(how, arguments)
            handle._calls.add(call)
            return call
        finally:
            del blocked[token]


class _Pools(SharedPools):
    """Pools linger on one thread, which exists while one lingers."""

    def _start_empty(self) -> None:
        super()._start_empty()
        self._lingering: deque[tuple[float, int, Shared]] = deque()
        self._runs = False

    def _after_fork_in_child(self) -> object:
        # The pools that linger there are the parent's.
        return (self._lingering, super()._after_fork_in_child())

    def create(self, recipe: Recipe) -> ChannelPool:
        return pool_of(recipe)

    def home(self) -> None:
        return None

    def fits(self, shared: Shared, home: None) -> bool:  # noqa: ARG002 -- see asyncio's twin
        return not shared.pool.closed

    def linger(self, shared: Shared) -> None:
        starts = False
        try:
            with self._lock:
                self._lingering.append((time.monotonic() + LINGERS_FOR, shared.releases, shared))
                starts = not self._runs
                self._runs = True
            if starts:
                start(new_thread(self._run, "grpcpool-shared"))
        except BaseException as error:
            if starts:
                self._runs = False
            if not isinstance(error, NoThreadError):
                raise
            # The interpreter shuts down, or the process is at its limit of threads.
            self._lingering.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._lingering:
                    self._runs = False
                    return
                first = self._lingering[0]
            until, releases, shared = first
            time.sleep(max(0.0, until - time.monotonic()))
            with self._lock:
                # There may be two of this thread, if one was started within the start of the other.
                if self._lingering and self._lingering[0] is first:
                    self._lingering.popleft()
            if self.expire(shared, releases):
                _end(shared.pool)
            # Not kept until the next one is due.
            del first, shared


def _end(pool: ChannelPool) -> None:
    """Closes a pool that has no handle; one with calls of handles that were dropped is collected after these."""
    try:
        if not is_in_use(pool):
            pool.close(0.0)
    except Exception:  # noqa: BLE001 -- others are to end as well
        # Such as the warning that a factory still runs.
        logger.exception("pool %r: the end of a shared pool failed", pool.name)


def _dropped(
    reference: Callable[[], Shared | None], token: object, subscribed: list[tuple[Callback, Callback]]
) -> None:
    """A handle has been collected. Safe in finalizers."""
    shared = reference()
    if shared is None:
        # It is collected together with the handle.
        return
    driver = shared.pool._driver
    for _, own in subscribed:
        driver.subscriptions.leave(own)
    if driver.worker.runs:
        driver.defer(partial(_pools.released, shared, token))
    else:
        # The work may never be done, and must not keep the pool, which has no connections.
        driver.defer(partial(_pools.released_if_alive, weakref.ref(shared), token))


_pools: Final = _Pools()
