"""The threaded driver of a pool: carries out the machine's effects, on the threads that they need."""

from __future__ import annotations

import math
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .._grpc.client_modules import is_within_call
from .._grpc.connectivity import TRUSTED_FOR
from .._grpc.interrupted_calls import unlock_left_locked, was_raised_within
from .._grpc.unbegun_reads import undo_unbegun_reads
from .._grpc.uncounted_calls import count_uncounted_call
from .._machine.slot import Slot
from .._shared.channel_source import ChannelSource
from .._shared.clock import Clock
from .._shared.driver import Driver
from .._shared.thread_start import NoThreadError, is_being_started, new_thread, start
from .._shared.unreachable import UnreachableError
from .._values.config import PoolConfig
from .._values.listener import Listener
from .looking_up import look_up_now
from .opening import open_channel, prime
from .sleeping import acquire_within
from .slot_channel import SyncSlotChannel
from .subscriptions import Subscriptions
from .threads import Threads
from .work_queue import WorkQueue
from .worker import Worker

# Threads of a closed pool have nothing left to do. One that a foreign callable blocks is not waited for longer.
_JOIN_TIMEOUT = 2.0


class SyncDriver(Driver):
    """What the threads of a pool share.

    It has fewer than 30 attributes. CPython keeps these in the object, and calls methods of such objects faster.
    """

    trusted_for = TRUSTED_FOR
    after_fork = "acquire a new one in the child"

    def __init__(
        self,
        source: ChannelSource,
        config: PoolConfig,
        *,
        name: str,
        listeners: Iterable[Listener],
        clock: Clock,
    ) -> None:
        """Creates the driver of an empty pool; see `ChannelPool` for the arguments."""
        super().__init__(source, config, name=name, listeners=listeners, clock=clock)
        self.worker = Worker(self, f"grpcpool-{name}", clock, self.guard)
        self.threads = Threads(f"grpcpool-{name}", self.guard)
        queue = partial(WorkQueue, look_at=self._look_at, monotonic=self.monotonic, guard=self.guard)
        self.starter = queue(f"grpcpool-{name}-starter")
        # Callbacks of calls, which may make calls and wait for them. Not gRPC's threads, which report the ends of calls
        # that have the places; nor the starter, which starts those that wait.
        self.callback_runner = queue(f"grpcpool-{name}-callbacks", blocks_after=math.inf, at_exit=True)
        self.subscriptions = Subscriptions(self, f"grpcpool-{name}")
        # It stays for longer than the pause between two checks.
        self.checker = queue(f"grpcpool-{name}-checks", lingers_for=1.5)
        # Places of blocking calls that are over, for later ones: to create and collect one costs more than to take it.
        self.spare_places: list[Any] = []
        # Held during a tick if a test sets the clock.
        self._ticking = threading.RLock()
        # Held until the end. Not an `Event`: if a signal handler raises in its `wait`, its lock may stay locked.
        self._end = threading.Lock()
        self._end.acquire()
        self._ended = False
        self.unsubscribe = clock.subscribe(self._tick_by_hand)

    def check_use(self, *, anywhere: bool = False) -> None:
        """Never raises: in a forked child the pool has a new driver."""

    # --- what the machine asks for ------------------------------------------------------------------------------

    def open_channel(self, slot: Slot) -> None:
        """On a thread of its own, because each step may block."""
        self._run(partial(self._open, slot), f"open-{slot.id}")

    def _open(self, slot: Slot) -> None:
        with self.lock:
            first, slot.dialled = not slot.dialled, True
        if not first:
            return
        try:
            channel = open_channel(self, slot)
        except UnreachableError as failed:
            _forget_locals(failed.reason)
            self.tell(self.machine.unreachable, slot, failed.channel, failed.reason)
        except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything; the waiters get it as a cause
            _forget_locals(error)
            self.tell(self.machine.open_failed, slot, error)
        else:
            self.tell(self.machine.opened, slot, channel)

    def look_up(self, number: int) -> None:
        """On a thread of its own, which nothing waits for: a look-up may hang for minutes."""
        try:
            start(new_thread(partial(self._look_up, number), f"grpcpool-{self.name}-look-up"))
        except NoThreadError as error:
            if sys.is_finalizing():
                # Nothing else runs any more, so that it holds up nothing.
                self._look_up(number)
            else:
                self.tell(self.machine.look_up_failed, error, number)

    def _look_up(self, number: int) -> None:
        try:
            found = look_up_now(self.source(), self.machine.fleet.endpoint)
        except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything
            _forget_locals(error)
            self.tell(self.machine.look_up_failed, error, number)
        else:
            self.tell(self.machine.addresses_found, found, number)

    def prime_again(self, slot: Slot) -> None:
        """On a thread of its own, because it may block."""
        self._run(partial(self._prime_again, slot), f"prime-{slot.id}")

    def _prime_again(self, slot: Slot) -> None:
        try:
            prime(self, slot.channel)
        except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything
            self.primed_again(slot, error)
        else:
            self.primed_again(slot, None)

    def close_channel(self, slot: Slot) -> None:
        """Never on a thread of gRPC's, where closing would wait for itself."""
        with self.lock:
            channel: SyncSlotChannel | None = slot.channel
        if channel is not None:
            self._run(channel.close, f"close-{slot.id}")

    def check_slots(self, slots: list[tuple[Slot, bool]]) -> None:
        """On a thread of its own: whatever waits for the lock of a channel must not hold up deadlines.

        gRPC's lock of a channel may be held for ever, if a signal handler raises within gRPC.
        """
        if self.clock.by_hand:
            self.check_slots_now(slots)
        elif slots:
            self.checker.do(partial(self.check_slots_now, slots))

    def changed(self) -> None:
        """Wakes the thread that notifies subscribers."""
        if self.subscriptions.subscribers:
            self.subscriptions.nudge()

    def finish(self) -> None:
        """Wakes the threads that wait for the end."""
        with self.lock:
            if not self._ended:
                self._ended = True
                self._end.release()
        self.subscriptions.over = True
        self.worker.nudge()
        self.forget_deferred()

    def wake_at(self, alarm: float) -> None:  # noqa: ARG002 -- the worker reads it itself
        """Wakes the worker."""
        if self.guard._is_owned():
            self.defer(self.ensure_tick)
        else:
            self.worker.wake()

    def defer(self, work: Callable[[], object]) -> None:
        """Queues `work` for the next operation, or for the worker, which is nudged."""
        self.deferred.append(work)
        self.worker.nudge()
        self.forget_deferred()

    def forget_deferred(self) -> None:
        """Forgets the deferred work if nothing will do it: it may refer to the pool, which would never be collected."""
        # Called by each of the three, after its step: the work is added, the pool ends, the worker ends.
        if self.is_orphan():
            self.deferred.clear()

    def is_orphan(self) -> bool:
        """Whether the pool has ended, and its worker, too."""
        return self._ended and (self.worker.has_abandoned or not self.worker.runs)

    def defer_apart(self, work: Callable[[], object]) -> None:
        """As `defer`, for work that waits for a lock of gRPC's, maybe forever: it has a thread of its own then."""
        self.defer(partial(self.checker.do, work))

    def _run(self, work: Callable[[], None], what: str) -> None:
        """Does `work` on another thread; on this one if none can be started, as when the interpreter shuts down."""
        try:
            self.threads.run(work, what)
        except NoThreadError:
            work()

    def when_interrupted(self, slot: Slot | None) -> Callable[[], object]:
        """What calls `interrupted` for a stream on the slot. A caller that keeps it keeps neither pool nor channel."""
        return partial(_interrupted, weakref.ref(self), weakref.ref(slot.channel) if slot is not None else _no_channel)

    def interrupted(self, slot: Slot | None) -> None:
        """A call on the slot is raising no status: in the main thread, a signal handler may have raised within gRPC."""
        if slot is None or self.void or threading.current_thread() is not threading.main_thread():
            return
        error = sys.exception()
        unlock_left_locked(error)
        if was_raised_within(error):
            undo_unbegun_reads(error, slot.channel.channel)
            slot.channel.broken = count_uncounted_call(error) or slot.channel.broken
            self.tell(partial(self.machine.blocked, for_good=slot.channel.broken), slot)

    # --- calls --------------------------------------------------------------------------------------------------

    def check_open(self, *, blocking: bool) -> None:
        """Checks that a call for which there was no place may wait for one.

        Raises:
            ValueError: The pool is closed; with the text of gRPC's own channels.
        """
        if self.machine.closing:
            raise ValueError(
                "Cannot invoke RPC on closed channel!" if blocking else "Cannot invoke RPC: Channel closed!"
            )

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def alarm(self) -> float:
        """When the next tick is due. The starter and the checker report theirs by `_look_at`."""
        return min(self.due_at(), self.starter.alarm, self.checker.alarm)

    def tick(self) -> None:
        """Does what is due."""
        if self.clock.by_hand:
            # One at a time: when the clock has been advanced, what the worker has begun is done, too.
            with self._ticking:
                self._tick()
        else:
            self._tick()

    def _tick(self) -> None:
        super().tick()
        now = self.monotonic()
        self.starter.take_over(now)
        self.checker.take_over(now)

    def _look_at(self, moment: float) -> None:
        """A start is to be looked at then, see `WorkQueue`."""
        if moment < self.wakes_at:
            # There are connections, so that the worker runs.
            self.worker.nudge()

    def _tick_by_hand(self) -> None:
        """A test has set the clock: does what is due, on its thread, and wakes the worker."""
        self.tick()
        self.worker.nudge()

    def is_at_rest(self) -> bool:
        """Whether there are no connections, waiters or deadlines."""
        return self.alarm == math.inf and not self.deferred and not len(self.machine.fleet.slots)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, grace: float) -> None:
        """Begins the end; `wait_closed` waits for it."""
        # While the interpreter shuts down, no thread could end it later.
        super().close(0.0 if sys.is_finalizing() else grace)

    def wait_closed(self) -> None:
        """Waits until nothing of the pool is left. Returns at once on a thread that the end depends on."""
        own = (self.worker, self.threads, self.starter, self.checker, self.callback_runner)
        if any(each.is_current() for each in own) or is_within_call() or sys.is_finalizing() or is_being_started():
            return
        while not self._ended:
            # A handler that raises here may leave it locked, which threads that wait as well see by the loop.
            if acquire_within(self._end, 1.0):
                self._end.release()
        self.subscriptions.close(_JOIN_TIMEOUT)
        self.starter.join(_JOIN_TIMEOUT)
        self.checker.join(_JOIN_TIMEOUT)
        self.callback_runner.join(_JOIN_TIMEOUT)
        # It may still wait for a look at a start that is over.
        self.worker.nudge()
        self.worker.join(_JOIN_TIMEOUT)
        if not self.threads.join(_JOIN_TIMEOUT):
            text = f"pool {self.name!r}: a factory, a prime or a channel's close() still runs after the pool was closed"
            warnings.warn(text, ResourceWarning, stacklevel=3)
        self.unsubscribe()

    def dropped(self) -> None:
        """The pool is being collected: the worker closes what is left. Safe in finalizers."""
        self.subscriptions.over = True
        self.worker.abandon()

    def abandon(self) -> None:
        """Ends what still works for a pool that has been dropped without a `close()`."""
        self.close_dropped()
        self.subscriptions.close(0.0)
        self.starter.join(0.0)
        self.checker.join(0.0)
        self.callback_runner.join(0.0)
        self.unsubscribe()


def _no_channel() -> None:
    return None


def _interrupted(driver: Callable[[], SyncDriver | None], channel: Callable[[], SyncSlotChannel | None]) -> None:
    alive, its_channel = driver(), channel()
    if alive is None or its_channel is None:
        return
    with alive.lock:
        slots = [slot for slot in alive.machine.fleet.slots if slot.channel is its_channel]
    for slot in slots:
        alive.interrupted(slot)


def _forget_locals(error: BaseException) -> None:
    """The machine keeps the error: the frames in which it was raised must not keep the pool, or the factory's owner."""
    traceback.clear_frames(error.__traceback__)
