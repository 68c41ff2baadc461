"""The asyncio driver of a pool: carries out the machine's effects, in the tasks that they need.

The machine's effects are carried out on the event loop that the pool is bound to, see `loop_bound.py`. There is no
``await`` between an event and its effects.

Each connection is opened by one task (`opening.py`) and closed by another. An idle pool has no task, and one timer for
the next deadline; another one holds calls that nothing else does. Nothing of gRPC is created before a loop runs,
because a channel binds to the loop that creates it.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from .._grpc.aio_calls import is_over
from .._grpc.client_modules import is_of_grpc
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._shared.announcer import logger
from .._shared.channel_source import ChannelSource
from .._shared.clock import Clock
from .._shared.unreachable import UnreachableError
from .._values.config import PoolConfig
from .._values.errors import PoolError, Refusal, refusal_error
from .._values.listener import Listener
from .._values.slot_states import SlotState
from .kept import Kept
from .looking_up import look_up_now
from .loop_bound import LoopBound
from .loop_end import LoopEnd, at_end_of, end_late, end_now
from .opening import open_channel, prime
from .slot_channel import AioSlotChannel

T = TypeVar("T")

# Tasks of a closed pool have nothing left to do. One that a foreign coroutine blocks is not waited for longer.
_JOIN_TIMEOUT = 2.0

# A wait for a change also checks the clock this often, because the clock may be a test's.
_CHECKS_EVERY = 0.05

# A look-up that others have cancelled is reported so many seconds later. A loop that cancels all tasks because it ends
# is closed by then.
_IF_IT_GOES_ON = 0.1


class AioDriver(LoopBound):
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
        """Creates the driver of an empty pool, not bound to a loop yet; see `ChannelPool` for the arguments."""
        super().__init__(source, config, name=name, listeners=listeners, clock=clock)
        self.finished = asyncio.Event()
        # Whether the pool is about to be closed.
        self.leaving = False
        self._openings: dict[Slot, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # The look-ups that have not returned, by number.
        self._look_ups: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        # Only the loop holds it: it ends with the loop. The finalizer of the pool holds this driver, and the calls hold
        # the pool, so that nothing would be freed otherwise.
        self._kept: Callable[[], Kept | None] = _nothing
        self._loop_end: LoopEnd | None = None
        # gRPC's calls that began as others were cancelled, which may be because the loop ends.
        self.begun_late: weakref.WeakSet[Any] = weakref.WeakSet()
        self._awaits_change: set[asyncio.Future[None]] = set()
        # The tasks that run interceptors.
        self._chains: set[asyncio.Task[Any]] = set()
        self.unsubscribe = clock.subscribe(self._tick_at_home)

    def bound(self) -> None:
        """Notices when the loop ends."""
        self._loop_end = at_end_of(self.loop, partial(_end_calls, weakref.ref(self)))

    # --- what the machine asks for ------------------------------------------------------------------------------

    def open_channel(self, slot: Slot) -> None:
        """In a task of its own, unless the slot has been given up meanwhile."""
        if slot.state is SlotState.CLOSED or slot.dialled:
            return
        slot.dialled = True
        self._openings[slot] = task = self._start(self._open(slot))
        task.add_done_callback(lambda _: self._openings.pop(slot, None))

    async def _open(self, slot: Slot) -> None:
        await _report(open_channel(self, slot), partial(self._opened, slot), partial(self._open_failed, slot))

    def _opened(self, slot: Slot, channel: AioSlotChannel) -> None:
        # From here on the task ends anyway: closing the slot must not cancel it.
        self._openings.pop(slot, None)
        self.tell(self.machine.opened, slot, channel)

    def _open_failed(self, slot: Slot, error: BaseException) -> None:
        self._openings.pop(slot, None)
        if isinstance(error, UnreachableError):
            traceback.clear_frames(error.reason.__traceback__)
            channel: Any = error.channel
            if not channel.given_up:
                self.tell(self.machine.unreachable, slot, channel, error.reason)
        else:
            self.tell(self.machine.open_failed, slot, error)

    def look_up(self, number: int) -> None:
        """In a task of its own, which `finish` cancels, and the answer of a later one: it may hang for minutes."""
        if number not in self._look_ups:
            self._look_ups[number] = task = self._start(self._look_up(number))
            task.add_done_callback(lambda _: self._look_ups.pop(number, None))

    async def _look_up(self, number: int) -> None:
        await _report(
            self._addresses(),
            partial(self._found, number),
            partial(self._look_up_failed, number),
            partial(self._look_up_cancelled, number),
        )

    async def _addresses(self) -> tuple[list[str], bool]:
        """The addresses, and whether a look-up for them can be cancelled."""
        source = self.source()
        found = await look_up_now(source, self.machine.fleet.endpoint, f"grpcpool-{self.name}-look-up")
        return found, inspect.iscoroutinefunction(source.addresses)

    def _found(self, number: int, answer: tuple[list[str], bool]) -> None:
        found, can_be_cancelled = answer
        self.tell(self.machine.addresses_found, found, number)
        # A thread cannot be cancelled, and counts among those that hang until it has ended.
        for other, task in tuple(self._look_ups.items()) if can_be_cancelled else ():
            if other < number:
                task.cancel()

    def _look_up_failed(self, number: int, error: BaseException) -> None:
        # One that is not reported would be the last.
        self.tell(self.machine.look_up_failed, error, number)

    def _look_up_cancelled(self, number: int, error: BaseException) -> None:
        if not self.finished.is_set():
            # Not at once: all tasks are cancelled when the loop ends, and then this is not called any more.
            self.loop.call_later(_IF_IT_GOES_ON, self.tell, self.machine.look_up_failed, error, number)

    def prime_again(self, slot: Slot) -> None:
        """In a task of its own, which closing the slot cancels."""
        self._openings[slot] = task = self._start(self._prime_again(slot))
        task.add_done_callback(lambda _: self._openings.pop(slot, None))

    async def _prime_again(self, slot: Slot) -> None:
        await _report(
            prime(self, slot.channel),
            lambda _: self.primed_again(slot, None),
            partial(self.primed_again, slot),
            lambda _: self.priming.discard(slot),
        )

    def close_channel(self, slot: Slot) -> None:
        """In a task of its own; an opening that is under way is cancelled, unless it ends with the channel."""
        opening = self._openings.pop(slot, None)
        channel: AioSlotChannel | None = slot.channel
        if (channel is None or channel.give_up()) and opening is not None:
            opening.cancel()
            opening = None
        if channel is not None:
            self._start(channel.close(opening))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not `create_task`: where tasks are eager, it would run at once, within the code that asked for it.
        make = partial(asyncio.Task, work, loop=self.loop)
        task: asyncio.Task[None] = self._context.copy().run(make)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def check_slots(self, slots: list[tuple[Slot, bool]]) -> None:
        """At once: on the loop nothing blocks."""
        self.check_slots_now(slots)

    def changed(self) -> None:
        """Wakes the coroutines that wait for a change."""
        waiting, self._awaits_change = self._awaits_change, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_change(self, within: float) -> None:
        """Waits until the state of the pool as a channel may have changed, for at most `within` seconds."""
        future = self.loop.create_future()
        self._awaits_change.add(future)
        try:
            await asyncio.wait([future], timeout=within)
        finally:
            self._awaits_change.discard(future)

    def keep(self, stage: Any, call: Any) -> None:
        """Holds `call` in this stage, or no longer if it is `None`; at most until the loop is closed."""
        kept = self._kept()
        if call is None:
            if kept is not None:
                kept.pop(stage, None)
                if self.finished.is_set():
                    kept.let_go_if_empty()
            return
        if kept is None:
            if self.void:
                return
            kept = Kept.by(self.loop)
            self._kept = weakref.ref(kept)
        kept[stage] = call

    # --- time ---------------------------------------------------------------------------------------------------

    def wake_at(self, alarm: float) -> None:
        """Sets the timer. If it rings early, it finds nothing to do and is set again."""
        delay = self.clock.wait_until(alarm)
        if self.loop is None or delay is None:
            return
        self._stop_timer()
        self.wakes_at = alarm
        self._timer = self.loop.call_later(delay, self._ring, context=self._context.copy())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.wakes_at = math.inf

    def _ring(self) -> None:
        self._stop_timer()
        try:
            self.tick()
        except Exception:  # noqa: BLE001 -- deadlines come whatever happens
            logger.exception("pool %r: a tick failed", self.name)
        finally:
            # A signal handler may have raised a `BaseException`, and the loop survives most of these.
            self.ensure_tick()

    def _tick_at_home(self) -> None:
        """A test has set the clock."""
        if self.loop is None or self.is_at_home():
            self.tick()
        else:
            self._call_soon(self.tick)

    # --- the end ------------------------------------------------------------------------------------------------

    async def let_calls_begin(self, grace: float, is_call: Callable[[Waiter], bool]) -> None:
        """Gives calls that gRPC counts as in flight, although they have no place yet, `grace` seconds to get one.

        These are the calls that are in their interceptors, and those that wait for the very first connection.
        Meanwhile nothing new is admitted, and all other waiters are refused.
        """
        if grace <= 0 or not (self._other_chains() or self._waits_for_the_first(is_call)):
            return
        self.leaving = True
        end = self.monotonic() + grace
        first = self._waits_for_the_first(is_call)
        self.refuse_all([waiter for waiter in self.machine.queue if not (first and is_call(waiter))], self.closed_error)
        for opener in tuple(self.machine.openers):
            self.tell(self.machine.cancel_open, opener)
            opener.refused(self.closed_error())
        while (self._other_chains() or self._waits_for_the_first(is_call)) and self.monotonic() < end:
            await self.wait_for_change(_CHECKS_EVERY)

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """Knows the task that runs the interceptors of a call until its end."""
        self._chains.add(chain)
        chain.add_done_callback(self._chain_ended, context=self._context)

    def _chain_ended(self, chain: asyncio.Task[Any]) -> None:
        self._chains.discard(chain)
        if self.leaving:
            self.changed()

    def _other_chains(self) -> set[asyncio.Task[Any]]:
        """Those of other tasks than this one: an interceptor may close the pool."""
        return self._chains - {asyncio.current_task(self.loop)} if self._chains else self._chains

    def _waits_for_the_first(self, is_call: Callable[[Waiter], bool]) -> bool:
        slots = self.machine.fleet.slots
        return bool(slots.opening) and not slots.ready and any(map(is_call, self.machine.queue))

    def closed_error(self) -> PoolError:
        """The error for those that come too late."""
        return refusal_error(self.name, Refusal.CLOSED, self.machine.figures(), None)

    def is_closing(self) -> bool:
        """Whether `close()` has been called."""
        return self.leaving or super().is_closing()

    def finish(self) -> None:
        """Wakes the coroutines that wait for the end, and cancels the calls that are still in their interceptors."""
        if not self.finished.is_set():
            for chain in self._other_chains():
                chain.cancel()
        for task in tuple(self._look_ups.values()):
            task.cancel()
        self.finished.set()
        if self._loop_end is not None:
            end_now(self._loop_end)
        self.changed()
        self._stop_timer()
        kept = self._kept()
        if kept is not None:
            kept.let_go_if_empty()
        self.unsubscribe()

    def is_gone(self) -> bool:
        """Whether nothing of the pool is left, so that no loop is needed to close it."""
        return self.finished.is_set() and not self._tasks and not self.void

    async def wait_closed(self) -> None:
        """Waits until nothing of the pool is left. In a task of the pool itself (a prime), returns at once."""
        if asyncio.current_task() in self._tasks:
            return
        await self.finished.wait()
        left = self._tasks | self._other_chains()
        if left:
            _, late = await asyncio.wait(left, timeout=_JOIN_TIMEOUT)
            if late:
                what = "a prime, an interceptor or a channel's close()"
                text = f"pool {self.name!r}: {what} still runs after the pool was closed"
                warnings.warn(text, ResourceWarning, stacklevel=3)

    def dropped(self) -> None:
        """The pool is being collected: the loop closes what is left. Safe in finalizers."""
        if self.loop is not None and not self.void and not self.loop.is_running():
            self._leave_channels()
        self.defer(self.close_dropped)

    def close_dropped(self) -> None:
        """Leaves its channels to gRPC."""
        self._leave_channels()
        super().close_dropped()

    def _leave_channels(self) -> None:
        """Leaves it to gRPC to close its channels, which nothing refers to any more: the loop may be at its end.

        Except those that are being opened, which gRPC would keep.
        """
        for slot in tuple(self.machine.fleet.slots.all):
            channel: AioSlotChannel | None = slot.channel
            if channel is not None and is_of_grpc(channel.channel) and not channel.waits:
                slot.channel = None


def _nothing() -> None:
    return None


async def _end_calls(reference: Callable[[], AioDriver | None]) -> None:
    """The loop ends, and has cancelled all tasks, gRPC's too. Calls that waited for places would begin at that.

    asyncio would report their tasks as destroyed, and gRPC would keep their connections open.
    """
    driver = reference()
    # A pool that has been closed ends its calls itself.
    if driver is not None and not driver.void and not driver.finished.is_set():
        driver.refuse_all([waiter for waiter in driver.machine.queue if waiter.is_call], driver.closed_error)
        await end_late([call for call in driver.begun_late if not is_over(call)])


async def _report(
    work: Coroutine[Any, Any, T],
    done: Callable[[T], object],
    failed: Callable[[BaseException], object],
    cancelled: Callable[[BaseException], object] | None = None,
) -> None:
    """Does `work`, which is or calls foreign code, and says how it ended.

    Args:
        work: What is awaited.
        done: Is called with the result.
        failed: Is called with whatever was raised: foreign code may raise anything, `CancelledError` included.
        cancelled: Is called instead if this task itself was cancelled.
    """
    try:
        result = await work
    except GeneratorExit:
        # This coroutine is collected together with its loop.
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            if cancelled is not None:
                cancelled(error)
            raise
        # The machine keeps the error; a call in its frames would keep the connection of its channel open.
        traceback.clear_frames(error.__traceback__)
        failed(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            # The program should end.
            raise
    else:
        done(result)


def _is_cancelled() -> bool:
    """Whether the current task itself was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
