"""The asyncio driver of a pool: hands for the machine's effects, and the tasks they need.

All that the machine asks for is done on the event loop that the pool is bound to, which is the loop of its first use.
There is no ``await`` between telling the machine and carrying out its effects. What happens on another thread (a
finalizer, a change of the bounds) tells the machine there, under the lock, and has the effects carried out on the loop.

Each connection is opened by a task (`opening.py`) and closed by another; a pool at rest has no task, and one timer for
the next deadline. Nothing of gRPC exists before there is a running loop: a channel binds to the loop
in which it is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
import traceback
import warnings
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._shared.announcer import logger
from .._shared.channel_source import ChannelSource
from .._shared.clock import Clock
from .._shared.driver import Driver
from .._values.config import PoolConfig
from .._values.errors import PoolError, Refusal, WrongEventLoopError, refusal_error
from .._values.listener import Listener
from .._values.slot_states import SlotState
from .opening import open_channel
from .slot_channel import AioSlotChannel

# Tasks of a closed pool have nothing left to do; one that a foreign coroutine holds up is not waited for longer.
_JOIN_TIMEOUT = 2.0

# Who waits for a change looks as often himself, for the clock may be a test's.
_LOOKS_EVERY = 0.05


class AioDriver(Driver):
    """What the tasks of a pool share."""

    trusted_for = 0.01
    after_fork = "asyncio gRPC does not survive a fork: start processes with spawn, or fork before the pool is used"

    def __init__(
        self,
        source: ChannelSource,
        config: PoolConfig,
        *,
        name: str,
        listeners: Iterable[Listener],
        clock: Clock,
    ) -> None:
        """Makes an empty pool's driver, not bound to a loop yet; see `ChannelPool` for the arguments."""
        super().__init__(source, config, name=name, listeners=listeners, clock=clock)
        # In a forked child, something that is no loop, so that whoever compares loops finds another.
        self.loop: Any = None
        self.finished = asyncio.Event()
        # Whether the pool is about to be closed.
        self.leaving = False
        # Not that of whoever happens to cause a connection to be opened: its deadline, its trace, are not the pool's.
        self._context = contextvars.Context()
        self._openings: dict[Slot, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._awaits_change: set[asyncio.Future[None]] = set()
        self.unsubscribe = clock.subscribe(self._tick_at_home)

    # --- where it may be used -----------------------------------------------------------------------------------

    def check_use(self, *, anywhere: bool = False) -> None:
        """Raises an error where the pool may not be used; `anywhere`: also by threads and loops it is not bound to.

        Raises:
            PoolForkedError: This is a forked child.
            WrongEventLoopError: The pool is bound to another loop than the one that runs here.
        """
        if self.void:
            raise self.forked_error("used in the parent")
        if anywhere or self.loop is None:
            return
        running = _get_running_loop()
        if self.loop.is_closed() or (running is not None and running is not self.loop):
            raise self._wrong_loop()

    def enter(self) -> None:
        """Whoever uses the loop begins here: binds the pool to the loop that runs, if it is not bound yet.

        Raises:
            PoolForkedError: This is a forked child.
            WrongEventLoopError: The pool is bound to another loop.
            RuntimeError: The pool is not bound, and no loop runs.
        """
        running = _get_running_loop()
        if running is not None and running is self.loop:
            return
        self.check_use()
        if self.loop is None:
            if running is None:
                raise RuntimeError(f"pool {self.name!r}: must first be used in a running event loop")
            self.loop = running
        elif running is None and self.loop.is_running():
            raise self._wrong_loop()

    def _wrong_loop(self) -> WrongEventLoopError:
        state = "closed" if self.loop.is_closed() else "another one"
        bound = f"pool {self.name!r}: bound to the event loop of its first use, which is {state}"
        return WrongEventLoopError(f"{bound} ({self.machine.figures()}); create a pool for each loop")

    def _is_at_home(self) -> bool:
        running = _get_running_loop()
        return running is self.loop or (running is None and not self.loop.is_running())

    def commit(self) -> None:
        """Carries out what the machine asked for; on the loop, if there is one.

        What is asked for meanwhile is carried out after it, not within: a place for which a thousand waiters in turn
        have no use would otherwise be released a thousand calls deep.
        """
        if self.loop is None:
            super().commit()
        elif self.void or self.loop.is_closed():
            # There is no one to notify, and nothing that could still be closed.
            return
        elif self._is_at_home():
            super().commit()
        else:
            self._call_soon(self._commit_at_home)

    def _commit_at_home(self) -> None:
        try:
            self.commit()
        except BaseException:
            self._call_soon(self.commit)
            raise

    def _call_soon(self, work: Callable[[], object]) -> None:
        # A loop that has been closed has nothing more to do.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(work, context=self._context)

    def defer(self, work: Callable[[], object]) -> None:
        """Has `work` done by the next operation, or by the loop."""
        self.deferred.append(work)
        if self.loop is not None and not self.void:
            self._call_soon(self.do_deferred)

    def become_void(self) -> None:
        """In a forked child: nothing of this is used any more."""
        self.void = True
        self.loop = object()
        # It may have been held by a thread that is not here.
        self.lock = threading.Lock()

    # --- hands --------------------------------------------------------------------------------------------------

    def open_channel(self, slot: Slot) -> None:
        """By a task of its own, unless the slot has been given up while this was on its way."""
        if slot.state is SlotState.CLOSED:
            return
        self._openings[slot] = task = self._start(self._open(slot))
        task.add_done_callback(lambda _: self._openings.pop(slot, None))

    async def _open(self, slot: Slot) -> None:
        try:
            channel = await open_channel(self, slot)
        except GeneratorExit:
            # This coroutine is collected together with its loop.
            raise
        except BaseException as error:
            # Foreign code may raise anything, `CancelledError` included; the waiters get it as a cause.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            # The machine keeps the error; a call in its frames would keep the connection of its channel open.
            traceback.clear_frames(error.__traceback__)
            # From here on this task ends by itself: closing the slot must not cancel it.
            self._openings.pop(slot, None)
            self.tell(self.machine.open_failed, slot, error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                # The program is to end.
                raise
        else:
            self._openings.pop(slot, None)
            self.tell(self.machine.opened, slot, channel)

    def close_channel(self, slot: Slot) -> None:
        """By a task of its own; a connection that is still being opened is given up."""
        opening = self._openings.pop(slot, None)
        if opening is not None:
            opening.cancel()
        channel: AioSlotChannel | None = slot.channel
        if channel is not None:
            self._start(channel.close())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not `create_task`: where tasks are eager, it would run within what asked for it.
        make = partial(asyncio.Task, work, loop=self.loop)
        task: asyncio.Task[None] = self._context.copy().run(make)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def changed(self) -> None:
        """Has those told who wait for a change."""
        waiting, self._awaits_change = self._awaits_change, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_change(self, within: float) -> None:
        """Waits until the state of the pool as a channel may have changed, so many seconds at most."""
        future = self.loop.create_future()
        self._awaits_change.add(future)
        try:
            await asyncio.wait([future], timeout=within)
        finally:
            self._awaits_change.discard(future)

    # --- time ---------------------------------------------------------------------------------------------------

    def see_to_alarm(self) -> None:
        """Sets the timer, if it would ring too late. One that rings early finds nothing to do, and is set anew."""
        alarm = self.alarm
        if alarm >= self._rings_at or self.loop is None:
            return
        delay = self.clock.wait_until(alarm)
        if delay is None:
            return
        self._stop_timer()
        self._rings_at = alarm
        self._timer = self.loop.call_later(delay, self._ring, context=self._context)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._rings_at = math.inf

    def _ring(self) -> None:
        self._stop_timer()
        try:
            self.tick()
        except Exception:  # noqa: BLE001 -- deadlines fall due whatever happens
            logger.exception("pool %r: a tick failed", self.name)
        finally:
            # A signal's handler may have raised what is no Exception, and the loop goes on after most of that.
            self.see_to_alarm()

    def _tick_at_home(self) -> None:
        """A test has turned the clock."""
        if self.loop is None or self._is_at_home():
            self.tick()
        else:
            self._call_soon(self.tick)

    # --- the end ------------------------------------------------------------------------------------------------

    async def let_first_calls_begin(self, grace: float, is_call: Callable[[Waiter], bool]) -> None:
        """Gives calls that wait for the very first connection, which for gRPC are in flight, so many seconds for it.

        Nobody else is let in meanwhile, and who waits for anything else is refused.
        """
        if grace <= 0 or not self._waits_for_the_first(is_call):
            return
        self.leaving = True
        end = self.monotonic() + grace
        for waiter in [waiter for waiter in self.machine.queue if not is_call(waiter)]:
            self.withdraw(waiter)
            waiter.refused(self.closed_error())
        for opener in tuple(self.machine.openers):
            self.tell(self.machine.cancel_open, opener)
            opener.refused(self.closed_error())
        while self._waits_for_the_first(is_call) and self.monotonic() < end:
            await self.wait_for_change(_LOOKS_EVERY)

    def _waits_for_the_first(self, is_call: Callable[[Waiter], bool]) -> bool:
        slots = self.machine.fleet.slots
        return bool(slots.opening) and not slots.ready and any(map(is_call, self.machine.queue))

    def closed_error(self) -> PoolError:
        """What whoever comes too late is told."""
        return refusal_error(self.name, Refusal.CLOSED, self.machine.figures(), None)

    def is_closing(self) -> bool:
        """Whether `close()` has been called."""
        return self.leaving or super().is_closing()

    def finish(self) -> None:
        """Whoever waits for the end is told."""
        self.finished.set()
        self.changed()
        self._stop_timer()
        self.unsubscribe()

    def is_gone(self) -> bool:
        """Whether nothing of the pool is left, so that no loop is needed to close it."""
        return self.finished.is_set() and not self._tasks and not self.void

    async def wait_closed(self) -> None:
        """Waits until nothing of the pool is left. In a task of the pool itself (a prime), returns at once."""
        if asyncio.current_task() in self._tasks:
            return
        await self.finished.wait()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_JOIN_TIMEOUT)
            if late:
                text = f"pool {self.name!r}: a prime or a channel's close() still runs after the pool was closed"
                warnings.warn(text, ResourceWarning, stacklevel=3)

    def dropped(self) -> None:
        """The pool is being collected: has the loop close what there is. Safe in finalizers."""
        self.defer(partial(self.close, 0.0))


def _is_cancelled() -> bool:
    """Whether the current task itself was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
