"""The threaded driver of a pool: one lock around the machine, and hands for its effects.

Every change goes the same way: take the lock, tell the machine, let go, carry out the effects (`commit`). Nothing
foreign (factory, prime, listeners, gRPC) is ever called with the lock held.

The core does not know the pool that it serves, so that a pool that nobody holds any more is collected although its
worker runs. Leases and calls hold both.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, assert_never

import grpc

from .._announcer import Announcer, logger
from .._clock import Clock, dates_of
from .._config import PoolConfig
from .._effects import Close, Effect, Grant, Notify, Open, Refuse, Started, Watch
from .._errors import refusal_error
from .._leaks import LeakWatch
from .._listener import Leaked, Listener
from .._machine import OpenWaiter, PoolMachine
from .._queue import Waiter
from .._slot import Slot, SlotState
from .._status import code_of
from .connectivity import TRUSTED_FOR
from .endings import on_end, reference
from .opening import ChannelFactory, open_channel
from .slot_channel import Methods, SlotChannel
from .starter import Starter
from .subscriptions import Subscriptions, pool_state
from .threads import Threads
from .worker import Worker

# How often a lost connection is asked whether it is back: soon at first, then with patience.
_FIRST_POLL, _LONGEST_POLL = 0.001, 0.25

# Threads of a closed pool have nothing left to do; one that a foreign callable holds up is not waited for longer.
_JOIN_TIMEOUT = 2.0


class Core:
    """What the threads of a pool share."""

    def __init__(
        self,
        factory: ChannelFactory,
        config: PoolConfig,
        *,
        name: str,
        listeners: Iterable[Listener],
        clock: Clock,
    ) -> None:
        """Makes an empty pool's core; see `ChannelPool` for the arguments."""
        self.factory = factory
        self.config = config
        self.name = name
        self.clock = clock
        self.monotonic = clock.monotonic
        self.date_of = dates_of(clock)
        self.lock = threading.Lock()
        self.machine = PoolMachine(config, name=name, random=random.random)
        self.announcer = Announcer(listeners)
        self.leaks = LeakWatch(config.leak_threshold) if config.leak_threshold is not None else None
        self.worker = Worker(self, f"grpcpool-{name}", clock)
        self.threads = Threads(f"grpcpool-{name}")
        self.starter = Starter(f"grpcpool-{name}-starter")
        # Callbacks may make calls, and wait for them to be started.
        self.teller = Starter(f"grpcpool-{name}-teller")
        self.subscriptions = Subscriptions(self, f"grpcpool-{name}")
        self.methods = Methods()
        self.finished = threading.Event()
        # What finalizers leave to be done, for they must not take the lock.
        self.deferred: deque[Callable[[], object]] = deque()
        # In a forked child, the parent's core: never touched again, but to be told that it is void.
        self.void = False
        # Lost slots, with the moment of the next look and the time between the looks.
        self._watched: dict[Slot, tuple[float, float]] = {}
        self.unsubscribe = clock.subscribe(self.tick)

    # --- driving the machine ------------------------------------------------------------------------------------

    def commit(self, effects: Sequence[Effect]) -> None:
        """Carries out what the machine asked for. Called without the lock, after every change but the smallest."""
        if self.void:
            return
        to_close = [effect.slot for effect in effects if isinstance(effect, Close)]
        if to_close:
            self._run(lambda: self._close_channels(to_close), "close")
        for effect in effects:
            self._answer(effect)
        try:
            for effect in effects:
                if isinstance(effect, Notify):
                    self.announcer.tell(effect.event)
        finally:
            # Last, so that nobody hears that a connection is open before he hears that it is being opened.
            for effect in effects:
                if isinstance(effect, Open):
                    self._run(partial(open_channel, self, effect.slot), f"open-{effect.slot.id}")
        if effects:
            self.subscriptions.nudge()
        if self.machine.closing and not len(self.machine.fleet.slots):
            self.finished.set()
            self.subscriptions.over = True
            self.worker.nudge()
        self.worker.see_to(self.alarm)

    def _answer(self, effect: Effect) -> None:
        match effect:
            case Grant(waiter=waiter, slot=slot):
                waiter.granted(slot)
            case Refuse(waiter=waiter):
                waiter.refused(refusal_error(self.name, effect.refusal, effect.figures, effect.cause))
            case Started(waiter=waiter):
                waiter.granted(None)
            case Watch(slot=slot):
                self._watched[slot] = (self.monotonic() + _FIRST_POLL, _FIRST_POLL)
            case Open() | Close() | Notify():
                pass
            case _:
                assert_never(effect)

    def _run(self, work: Callable[[], None], what: str) -> None:
        """Has `work` done by another thread; if there can be none, as when the interpreter shuts down, by this one."""
        try:
            self.threads.run(work, what)
        except RuntimeError:
            work()

    def _close_channels(self, slots: Sequence[Slot]) -> None:
        """Closes channels. Never on a thread of gRPC's, where that would wait for itself, nor under the lock."""
        for slot in slots:
            with self.lock:
                channel: SlotChannel | None = slot.channel
            if channel is not None:
                channel.close()

    # --- places -------------------------------------------------------------------------------------------------

    def release(self, slot: Slot, streams: int | None) -> None:
        """Gives a place back."""
        with self.lock:
            effects = self.machine.release(slot, streams, self.monotonic())
        if effects:
            self.commit(effects)

    def request(self, waiter: Waiter) -> None:
        """Asks for a place; the waiter is told, maybe before this returns."""
        self.do_deferred()
        with self.lock:
            effects = self.machine.request(waiter, self.monotonic())
            waiter.known = True
        self._commit_for(waiter, effects)

    def open(self, waiter: OpenWaiter) -> None:
        """Has `min_size` connections opened; the waiter is told, maybe before this returns."""
        with self.lock:
            effects = self.machine.open(waiter, self.monotonic())
            waiter.known = True
        self._commit_for(waiter, effects)

    def _commit_for(self, waiter: Waiter, effects: Sequence[Effect]) -> None:
        """As `commit`, but should it be interrupted, the waiter, who is this thread, has his answer all the same."""
        try:
            self.commit(effects)
        except BaseException:
            for effect in effects:
                if isinstance(effect, Grant | Refuse | Started) and effect.waiter is waiter and not waiter.answered:
                    self._answer(effect)
            raise

    def cancel(self, waiter: Waiter) -> bool:
        """Gives up waiting; says whether the waiter was still queued. If not, his answer is told to him."""
        if self.void:
            return True
        with self.lock:
            queued, effects = self.machine.cancel(waiter, self.monotonic())
        self.commit(effects)
        return queued

    def is_fit(self, slot: Slot, streams: int | None) -> bool:
        """Whether the connection of the place just taken is up; if it is not, the place is given back."""
        channel: SlotChannel = slot.channel
        now = self.monotonic()
        if slot.state is not SlotState.READY or channel.is_up():
            channel.trusted_until = now + TRUSTED_FOR
            return True
        with self.lock:
            effects = self.machine.unfit(slot, streams, now)
        self.commit(effects)
        return False

    # --- calls --------------------------------------------------------------------------------------------------

    def call_deadline(self, timeout: float | None, now: float) -> float:
        """Until when a call may wait: its own deadline, or, if it has none, the configured time."""
        if timeout is None:
            timeout = self.config.acquire_timeout
        return math.inf if timeout is None else now + timeout

    def check_open(self, *, blocking: bool) -> None:
        """A call is about to begin, the slow way.

        Raises:
            ValueError: The pool is closed; in the words of gRPC's own channels.
        """
        if self.machine.closing:
            raise ValueError(
                "Cannot invoke RPC on closed channel!" if blocking else "Cannot invoke RPC: Channel closed!"
            )

    def watch_call(self, call: Any, slot: Slot, pool: object) -> Any:
        """Has the place on `slot` given back when `call` is over; returns what to hand out for it.

        A call keeps its pool, as gRPC's calls keep their channel: who has a call need not have more.
        """
        return on_end(call, partial(self._end_call, slot, reference(call, self.defer), pool), self.defer)

    def _end_call(self, slot: Slot, call: Callable[[], Any], _pool: object) -> None:
        """On gRPC's thread; never raises. A reference to the call would keep a stream that was dropped running."""
        self.release(slot, 1)
        code = code_of(call())
        if code is grpc.StatusCode.UNAVAILABLE:
            self.defer(partial(self.call_failed, slot, code))

    def call_failed(self, slot: Slot, code: grpc.StatusCode | None) -> None:
        """A call failed; if its connection is down, the slot gets no more while another is up."""
        channel: SlotChannel = slot.channel
        if code is not grpc.StatusCode.UNAVAILABLE or slot.state is not SlotState.READY:
            return
        if channel.state() is not grpc.ChannelConnectivity.READY:
            with self.lock:
                effects = self.machine.lost(slot, self.monotonic())
            self.commit(effects)

    def refused_stream(self, slot: Slot) -> None:
        """The server refused a call on one stream of the slot: gives the place back, and lowers the slot's limit."""
        with self.lock:
            effects = self.machine.refused_stream(slot, self.monotonic())
        self.commit(effects)

    def connect(self) -> None:
        """Has the pool open what it keeps open, without waiting for a first use."""
        with self.lock:
            effects = self.machine.connect(self.monotonic())
        self.commit(effects)

    def connectivity(self) -> grpc.ChannelConnectivity:
        """The state of the pool as a channel."""
        with self.lock:
            slots = [(slot.state, slot.channel) for slot in self.machine.fleet.slots]
            failing = self.machine.last_error is not None
        states = [(state, channel.state() if channel is not None else None) for state, channel in slots]
        return pool_state(states, failing=failing)

    # --- what finalizers leave ----------------------------------------------------------------------------------

    def defer(self, work: Callable[[], object]) -> None:
        """Has `work` done by the next operation, or by the worker, which is nudged. Safe in finalizers."""
        self.deferred.append(work)
        self.worker.nudge()

    def do_deferred(self) -> None:
        """Does what finalizers left to be done."""
        while self.deferred:
            try:
                work = self.deferred.popleft()
            except IndexError:
                return
            try:
                work()
            except Exception:  # noqa: BLE001 -- whoever operates the pool now has nothing to do with it
                logger.exception("pool %r: what a finalizer left to be done failed", self.name)

    def forget_leak(self, ticket: int) -> None:
        """A lease that was watched for being held too long has been given back."""
        if self.leaks is not None:
            with self.lock:
                self.leaks.returned(ticket)

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def alarm(self) -> float:
        """When the next tick is due."""
        alarm = self.machine.next_deadline()
        if self.leaks is not None:
            alarm = min(alarm, self.leaks.next_deadline())
        # A copy: another thread may add a slot meanwhile.
        for at, _ in tuple(self._watched.values()):
            alarm = min(alarm, at)
        return alarm

    def is_at_rest(self) -> bool:
        """Whether there is no connection, and nobody waits for one."""
        return self.alarm == math.inf and not len(self.machine.fleet.slots) and not self.deferred

    def tick(self) -> None:
        """Does what is due. On the worker's thread, or on that of a test that turns the clock."""
        self.do_deferred()
        now = self.monotonic()
        if self.machine.next_deadline() <= now:
            with self.lock:
                effects = self.machine.tick(now)
            self.commit(effects)
        self._look_after_lost(now)
        self._report_leaks(now)

    def _look_after_lost(self, now: float) -> None:
        for slot, (at, pause) in tuple(self._watched.items()):
            channel: SlotChannel = slot.channel
            if slot.state is not SlotState.LOST:
                self._watched.pop(slot, None)
            elif at > now:
                continue
            elif channel.is_up():
                self._watched.pop(slot, None)
                with self.lock:
                    effects = self.machine.recovered(slot, now)
                self.commit(effects)
            else:
                longer = min(2 * pause, _LONGEST_POLL)
                self._watched[slot] = (now + longer, longer)

    def _report_leaks(self, now: float) -> None:
        if self.leaks is None or self.leaks.next_deadline() > now:
            return
        with self.lock:
            late = self.leaks.overdue(now)
        for held in late:
            leaked = Leaked(pool=self.name, channel=held.channel, held=now - held.since, stack=held.stack)
            self.announcer.tell(leaked)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, grace: float) -> None:
        """Begins the end; `wait_closed` waits for it."""
        self.do_deferred()
        if sys.is_finalizing():
            # There are no threads any more that could end it later.
            grace = 0.0
        now = self.monotonic()
        with self.lock:
            effects = self.machine.close(now + grace, now)
        self.commit(effects)

    def wait_closed(self) -> None:
        """Waits until nothing of the pool is left. On a thread that this depends on, returns at once."""
        own = (self.worker, self.threads, self.starter, self.teller)
        if any(each.is_current() for each in own) or _is_within_grpc() or sys.is_finalizing():
            return
        self.finished.wait()
        self.subscriptions.close(_JOIN_TIMEOUT)
        self.starter.join(_JOIN_TIMEOUT)
        self.teller.join(_JOIN_TIMEOUT)
        self.worker.join(_JOIN_TIMEOUT)
        if not self.threads.join(_JOIN_TIMEOUT):
            text = f"pool {self.name!r}: a factory, a prime or a channel's close() still runs after the pool was closed"
            warnings.warn(text, ResourceWarning, stacklevel=3)
        self.unsubscribe()

    def dropped(self) -> None:
        """The pool is being collected: has the worker abandon what there is. Safe in finalizers."""
        self.subscriptions.over = True
        self.worker.abandon()

    def abandon(self) -> None:
        """The pool was dropped without a `close()`: closes what it had."""
        self.close(0.0)
        self.subscriptions.close(0.0)
        self.starter.join(0.0)
        self.teller.join(0.0)
        self.unsubscribe()


def _is_within_grpc() -> bool:
    """Whether gRPC is below us on the stack: this is a callback, a request iterator or a serializer.

    gRPC closes a channel by waiting for its calls to end, and a call does not end before its callbacks have. Who
    waits for the close in a callback waits for himself, even if another thread does the closing (measured).
    """
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "grpc._channel":
            return True
        frame = frame.f_back
    return False
