"""Handles on pools that a process shares, for asyncio: `shared_channel`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import grpc

from .._grpc.aio_calls import is_over
from .._shared.arguments import Arguments
from .._shared.fork import watch_for_fork
from .._shared.pool_base import Configured
from .._shared.recipe import Credentials, Recipe
from .._shared.sharing import LINGERS_FOR, Calls, HandleBase, Shared, SharedPools, is_in_use
from .._shared.targets import check_credentials, recipe_of
from .._values.config import PoolConfig
from .arguments import Caller
from .factories import pool_of
from .interceptors import add_interceptors
from .lease import Lease
from .loop_end import LoopEnd, at_end_of, end_now
from .pool import ChannelPool
from .waiter import AwaitedOpenWaiter, AwaitedWaiter

if TYPE_CHECKING:
    from .._shared.methods import Method
    from .driver import AioDriver

# Between two looks at calls that are to end.
_LOOKS_EVERY = 0.005

# A cancelled call ends at once, unless its interceptor goes on. That is not waited for longer.
_PATIENCE = 1.0


def shared_channel(
    target: str | Sequence[str],
    credentials: Credentials | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
) -> ChannelPool:
    """A handle on this process's one pool for these arguments and the running event loop.

    Same as `grpcpool.shared_channel`, on asyncio. Where no loop runs, the handle finds its pool at its first use, in
    the loop of that.

    Args:
        target: As for `insecure_channel`.
        credentials: `None` for an insecure channel; else as for `secure_channel`. The same object, or an equal
            callable, leads to the same pool.
        options: As for `insecure_channel`.
        compression: As for `insecure_channel`.
        interceptors: Those of this handle. Others have their own.
        config: As for `insecure_channel`.
        name: As for `insecure_channel`.

    Returns:
        A `ChannelPool`, and so a `grpc.aio.Channel`. Its `close()` refuses its own further calls, cancels those in
        flight, and releases its own leases; other handles go on. The pool is closed two seconds after its last
        handle has been closed or collected, or at the end of the loop if that is earlier.

    Raises:
        TypeError: As for `secure_channel`.
        ValueError: As for `insecure_channel`.
    """
    if credentials is not None:
        check_credentials(credentials)
    handle = handle_from(recipe_of(target, credentials, options, compression, config=config, name=name))
    add_interceptors(handle, interceptors or ())
    return handle


def handle_from(recipe: Recipe, interceptors: Sequence[tuple[str, tuple[Any, ...]]] = ()) -> PoolHandle:
    """A new handle on the shared pool for these arguments, with these interceptors."""
    handle = PoolHandle(recipe)
    for attribute, group in interceptors:
        getattr(handle, attribute).extend(group)
    return handle


class PoolHandle(HandleBase, ChannelPool):
    """A channel of its own over a pool that others use as well. `ChannelPool` describes what it offers."""

    _shown_as = "handle on grpcpool.aio.ChannelPool"
    # Whether it is closed, and its grace is over.
    _ended = False

    def __init__(self, recipe: Recipe) -> None:
        """Is a handle on the shared pool for these arguments."""
        HandleBase.__init__(self, recipe, _pools)
        self._settled = _get_running_loop() is not None
        # The tasks that wait for a lease, or for `open()`; and those that run interceptors.
        self._waiting: dict[object, asyncio.Task[Any] | None] = {}
        self._chains: set[asyncio.Task[Any]] = set()
        self._calls, self._leases = Calls(), Calls()
        self._watch_for_drop()
        watch_for_fork(self)

    def _watch_for_drop(self) -> None:
        self._drop = weakref.finalize(self, _dropped, self._shared.reference(), self._token)
        self._drop.atexit = False

    def _after_fork_in_child(self) -> Any:
        """In a forked child: what was in flight is the parent's. Returns what must be kept untouched."""
        old = (self._waiting, self._chains)
        self._waiting, self._chains = {}, set()
        # References to them only.
        self._calls.begun.clear()
        self._leases.begun.clear()
        return old

    @property
    def _observed(self) -> ChannelPool:
        pool: ChannelPool = self._pool if self._settled else self
        return pool

    def _settle(self) -> None:
        """Called before each use: a handle that was created where no loop ran goes to the pool of the loop here."""
        if self._settled or self._closed or _get_running_loop() is None:
            return
        self._settled = True
        old, self._shared = self._shared, _pools.settled(self._shared, self._recipe, self._token)
        if self._shared is not old:
            self._drop.detach()
            self._watch_for_drop()
            _pools.released(old, self._token)

    # --- what is followed ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """The current task waits for something of this handle during the ``with`` block."""
        token = object()
        self._check_open()
        self._settle()
        self._waiting[token] = asyncio.current_task()
        try:
            yield
        finally:
            self._waiting.pop(token, None)

    async def _acquire(self, within: float | Configured | None, streams: int | None, stack: str) -> Lease:
        with self._waits():
            lease: Lease = await self._pool._acquire(within, streams, stack)
        lease._pool = self
        self._leases.add(lease)
        if self._closed:
            lease.release()
            raise self._closed_error()
        return lease

    async def open(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as the sync twin
        """Same as `ChannelPool.open`."""
        with self._waits():
            await self._pool.open(timeout)

    def _caller(self, kind: str, *arguments: Any) -> tuple[Caller, Method]:
        caller, method = self._pool._caller(kind, *arguments)
        return HandleCaller(self, caller, self._pool), method

    def _caller_of_lease(self, caller: Caller) -> Caller:
        return HandleCaller(self, caller)

    def _has_ended(self) -> bool:
        return self._ended or super()._has_ended()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Same as `ChannelPool.get_state`."""
        self._settle()
        return super().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Same as `ChannelPool.wait_for_state_change`."""
        self._settle()
        await super().wait_for_state_change(last_observed_state)

    # --- the end ------------------------------------------------------------------------------------------------

    async def close(self, grace: float | None = None) -> None:
        """Closes this handle; the pool goes on for others, see `shared_channel`. Idempotent.

        Args:
            grace: Seconds that the calls and leases of this handle have to end; `PoolConfig.close_grace` if not given.
        """
        if self._ended and not self._drop.alive:
            return
        seconds = self._grace(grace)
        self._closed = True
        driver: AioDriver = self._driver
        try:
            if driver.loop is not None and not driver.void and not driver.loop.is_closed():
                driver.enter()
                await self._until_nothing_runs(seconds)
                self._cancel()
                await self._until_nothing_runs(_PATIENCE)
        finally:
            self._ended = True
            self._cancel()
            if self._drop.alive:
                _pools.released(self._shared, self._token)
                # If a signal handler has raised before, it is released once more, which does no harm.
                self._drop.detach()

    async def _until_nothing_runs(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._runs() and time.monotonic() < until:
            await self._driver.wait_for_change(_LOOKS_EVERY)

    def _runs(self) -> bool:
        return bool(
            self._waiting
            or self._other_chains()
            or self._calls.in_flight(is_over)
            or self._leases.in_flight(_is_released)
        )

    def _other_chains(self) -> set[asyncio.Task[Any]]:
        """Those of other tasks than this one: an interceptor may close the handle."""
        return self._chains - {asyncio.current_task()} if self._chains else self._chains

    def _cancel(self) -> None:
        driver: AioDriver = self._driver
        if driver.void or driver.loop is None or driver.loop.is_closed():
            return
        tasks, machine = set(self._waiting.values()), driver.machine
        waiters = [each for each in machine.queue if isinstance(each, AwaitedWaiter) and each.task in tasks]
        driver.refuse_all(waiters, self._closed_error)
        for opener in tuple(machine.openers):
            if isinstance(opener, AwaitedOpenWaiter) and opener.task in tasks:
                driver.tell(machine.cancel_open, opener)
                opener.refused(self._closed_error())
        for chain in self._other_chains():
            chain.cancel()
        for call in self._calls.in_flight(is_over):
            with contextlib.suppress(Exception):
                # What an interceptor returned may raise anything.
                call.cancel()
        for lease in self._leases.in_flight(_is_released):
            lease.release()


def _is_released(lease: Lease) -> bool:
    return lease._released


class HandleCaller:
    """Runs the calls of one method over a handle, which follows them."""

    __slots__ = ("_begun", "_caller", "_handle", "_is_settled", "_pool")

    def __init__(self, handle: PoolHandle, caller: Caller, pool: ChannelPool | None = None) -> None:
        """Runs them through `caller`, of a lease or of `pool`."""
        self._handle = handle
        self._caller = caller
        self._pool = pool
        self._begun = handle._calls.begun
        # Whether what `_current` does has been done.
        self._is_settled = handle._settled

    def _current(self) -> Caller:
        """The caller of the handle's pool, which its first use may have changed."""
        handle = self._handle
        handle._settle()
        if self._pool is not None and self._pool is not handle._pool:
            _, method = self._caller.origin()
            self._pool = handle._pool
            self._caller, _ = self._pool._caller(method.kind, *method.arguments)
        self._is_settled = handle._settled
        return self._caller

    def origin(self) -> tuple[Any, Method]:
        """The handle, and the method."""
        _, method = self._caller.origin()
        return self._handle, method

    @property
    def driver(self) -> AioDriver:
        """The driver of the pool."""
        return self._current().driver

    def of_other_method(self, name: str) -> HandleCaller:
        """The caller for a method with another name."""
        return HandleCaller(self._handle, self._current().of_other_method(name), self._pool)

    def begin_chain(self) -> bool:
        """An intercepted call begins; returns whether it may go on even if the handle is closed meanwhile."""
        return self._current().begin_chain() and not self._handle._closed

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors of a call."""
        self._caller.watch_chain(chain)
        self._handle._chains.add(chain)
        chain.add_done_callback(self._handle._chains.discard)

    def end_chain(self) -> None:
        """The interceptors of a call are done."""
        self._caller.end_chain()

    def begin(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call.

        Raises:
            grpc.aio.UsageError: The handle is closed.
        """
        if self._handle._closed and chain is None:
            raise grpc.aio.UsageError("Channel is closed.")
        caller = self._caller if self._is_settled else self._current()
        call = caller.begin(arguments, chain)
        # As `Calls.add` does, which would cost as much again to call.
        call._followed_in = begun = self._begun
        begun.add(ref(call, begun.discard))
        return call


class _Pools(SharedPools):
    """A pool belongs to the loop that ran when it was asked for.

    Where none ran, as in the threads in which many engines receive what they are sent, a handle has a pool for the time
    being. At the handle's first use that becomes the pool of the loop there, if this has none.
    """

    def create(self, recipe: Recipe) -> ChannelPool:
        return pool_of(recipe)

    def home(self) -> weakref.ref[asyncio.AbstractEventLoop] | None:
        loop = _get_running_loop()
        return None if loop is None else weakref.ref(loop)

    def fits(self, shared: Shared, home: weakref.ref[asyncio.AbstractEventLoop] | None) -> bool:
        pool: ChannelPool = shared.pool
        if pool.closed or pool._driver.void:
            return False
        bound = pool._driver.loop
        if bound is None:
            return bool(shared.home == home)
        return home is not None and bound is home()

    def settled(self, shared: Shared, recipe: Recipe, token: object) -> Shared:
        """The pool for the running loop, instead of the one that a handle has for the time being."""
        home = self.home()
        with self._lock:
            known = self._alive(recipe.key())
            is_free = shared.home is None and shared.pool._driver.loop is None
            if is_free and not any(self.fits(each, home) for each in known):
                shared.home = home
            if self.fits(shared, home):
                return shared
        return self.handle_on(recipe, token)

    def linger(self, shared: Shared) -> None:
        """Until a timer of the loop rings, or until the loop ends: then it closes its asynchronous generators.

        No task does this: one that begins while the loop ends would not end with it.
        """
        loop: Any = shared.pool._driver.loop
        releases = shared.releases
        end = at_end_of(loop, partial(self._loop_ends, shared, releases))
        # If the loop is at its end, nothing holds the pool.
        if end is not None:
            loop.call_later(LINGERS_FOR, self._expired, shared, releases, end)

    def _expired(self, shared: Shared, releases: int, end: LoopEnd) -> None:
        driver: AioDriver = shared.pool._driver
        # One with calls of handles that were dropped is collected after these.
        ends = self.expire(shared, releases) and not is_in_use(shared.pool)
        if ends and not driver.is_closing():
            driver.close(0.0)
        if ends and not driver.is_gone():
            driver.loop.call_later(_LOOKS_EVERY, self._expired, shared, releases, end)
        else:
            end_now(end)

    async def _loop_ends(self, shared: Shared, releases: int) -> None:
        if self.expire(shared, releases) and not is_in_use(shared.pool):
            await shared.pool.close(0.0)


def _dropped(reference: Callable[[], Shared | None], token: object) -> None:
    """A handle has been collected. Safe in finalizers."""
    shared = reference()
    if shared is None:
        # It is collected together with the handle.
        return
    driver: AioDriver = shared.pool._driver
    driver.defer(partial(_pools.released_if_alive, weakref.ref(shared), token))
    # The loop keeps the pool until it has done that, or is closed: then the pool is collected.
    driver.call_soon(partial(_keep, shared))


def _keep(shared: Shared) -> None:
    """What is an argument of this is kept until it is called."""


_pools: Final = _Pools()
