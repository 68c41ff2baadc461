"""What both drivers of a pool share: one lock around the machine, and what the operations of a pool do with it.

Every change goes the same way: take the lock, report the event to the machine, release the lock (`tell`), carry out the
effects (`commit`, see `carrying_out.py`). No foreign code (factory, prime, listeners, gRPC) runs with the lock held.
The asyncio driver has a lock as well: a lease may be dropped, and a snapshot taken, on any thread.

A driver adds how connections are opened and closed, what calls `tick`, and how the end is awaited (`_sync/driver.py`,
`_aio/driver.py`). It does not know the pool that it serves, so that a pool without references is collected although its
background work goes on. Leases and calls hold both.
"""

from __future__ import annotations

import abc
import math
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc

from .._grpc.status import Status
from .._machine.effects import Notify
from .._machine.machine import PoolMachine
from .._machine.openers import OpenWaiter
from .._machine.places import Holder
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._values.config import PoolConfig
from .._values.errors import ConnectError, PoolError, PoolForkedError, Refusal, refusal_error
from .._values.listener import Listener
from .._values.plain_text import plain
from .._values.slot_states import SlotState
from .announcer import Announcer, logger
from .carrying_out import CarryingOut
from .channel_source import ChannelSource
from .clock import Clock, dates_of
from .deferred_work import do_deferred_work
from .lateness import openings_to_extend
from .leaks import LeakWatch
from .losses import LossWatch
from .methods import Methods
from .pool_state import pool_state
from .slot_channel import SlotChannel
from .token_lock import token_lock

T = TypeVar("T")

# Ranks addresses, so that processes that are started together do not all prefer the same ones.
_SEED = random.getrandbits(64)

# Before a call is sent again. It doubles each time.
_FIRST_PAUSE = 0.01


class Driver(CarryingOut):
    """What acts for one pool."""

    # Seconds for which a connection that was seen up is leased without another check, which costs as much as half an
    # acquire. Only a check counts, not that the connection was used meanwhile: a dead connection fails its calls faster
    # than a live one serves them, and would be used ever more often.
    trusted_for: float

    # What to do in a forked child.
    after_fork: str

    # By when `tick` will be called in any case; `math.inf` for never.
    wakes_at = math.inf

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
        self._source = weakref.ref(source)
        self.clock = clock
        self.monotonic = clock.monotonic
        self.date_of = dates_of(clock)
        self.lock = token_lock()
        # Held while threads are started, and by these around their work. It knows its owner, as its own `Condition`
        # does: a finalizer may interrupt that.
        self.guard: Any = threading.RLock()
        # Where a finalizer has last interrupted a thread that held the lock of the machine, see `interrupts`.
        self.interrupted_at: tuple[int, int] | None = None
        addressing = source.addressing._replace(seed=hash((_SEED, os.getpid())))
        self.machine = PoolMachine(
            config.replace(prime=None),
            name=name,
            random=random.random,
            primes=config.prime is not None,
            addressing=addressing,
        )
        self.places = self.machine.places
        self.leaks = LeakWatch(config.leak_threshold) if config.leak_threshold is not None else None
        self.announcer = Announcer()
        self.set_listeners(listeners)
        self.methods = Methods()
        # Slots that are being primed again.
        self.priming: set[Slot] = set()
        self.losses = LossWatch(self.machine, self.tell, self._back, self.monotonic)
        # Work of finalizers, which must not take the lock.
        self.deferred: deque[Callable[[], object]] = deque()
        # Set on the parent's driver in a forked child, where it is never used again.
        self.void = False

    # --- what a driver adds -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def prime_again(self, slot: Slot) -> None:
        """Primes the slot's connection, which is back, in the background; then calls `primed_again`."""

    @abc.abstractmethod
    def check_slots(self, slots: list[tuple[Slot, bool]]) -> None:
        """Calls `check_slots_now` where it may block."""

    @abc.abstractmethod
    def changed(self) -> None:
        """The state of the pool as a channel may have changed."""

    @abc.abstractmethod
    def finish(self) -> None:
        """The pool is closed, and its last connection is gone."""

    @abc.abstractmethod
    def wake_at(self, alarm: float) -> None:
        """Ensures that `tick` is called at `alarm`, which is before `wakes_at`."""

    @abc.abstractmethod
    def defer(self, work: Callable[[], object]) -> None:
        """Does `work` soon, where the driver's work is done. Safe in finalizers."""

    @abc.abstractmethod
    def is_orphan(self) -> bool:
        """Whether nothing does what is deferred any more, because the pool is at its end. Safe in finalizers."""

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.machine.name

    @property
    def config(self) -> PoolConfig:
        """The pool's settings, without `prime`."""
        return self.machine.config

    def source(self) -> ChannelSource:
        """The user's factory and prime.

        Raises:
            ConnectError: The pool has been dropped.
        """
        source = self._source()
        if source is None:
            self.close_dropped()
            raise ConnectError("the pool has been dropped")
        return source

    def set_listeners(self, listeners: Iterable[Listener]) -> None:
        """Notifies these listeners from now on. Grants are not logged: only listeners need their events."""
        self.announcer.set_listeners(listeners)
        self.machine.grants.has_listeners = bool(self.announcer.listeners)
        # Whether leases are followed: one flag, because each acquire reads it.
        self.follows_leases = self.leaks is not None or self.announcer.emits_releases

    # --- where it may be used -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def check_use(self, *, anywhere: bool = False) -> None:
        """Raises an error where the pool may not be used; `anywhere`: also by threads and loops it is not bound to."""

    def forked_error(self, what: str) -> PoolForkedError:
        """The error for using something from before a fork; `what` says which. The figures are those of the fork."""
        return PoolForkedError(
            f"pool {self.name!r}: {what} before the fork ({self.machine.figures()}); {self.after_fork}"
        )

    # --- driving the machine ------------------------------------------------------------------------------------

    def tell(self, event: Callable[..., T], *what: Any) -> T:
        """Reports an event to the machine, as of now, and carries out what it asks for; returns what it returns."""
        try:
            with self.lock:
                answer = event(*what, self.monotonic())
            self.commit()
        except BaseException:
            self.recover()
            raise
        return answer

    def recover(self) -> None:
        """Completes a step that an exception, such as one of a signal handler, has ended halfway."""
        try:
            with self.lock:
                self.machine.repair(self.monotonic())
            self.commit()
        except BaseException:
            # A second handler has raised: the worker repairs the rest, or on asyncio the next round of the loop.
            self.defer(self.recover)
            raise

    def commit(self) -> None:
        """Carries out what the machine asked for. Called without the lock, after every change but the smallest."""
        if self.void:
            return
        machine = self.machine
        outbox, fleet = machine.outbox, machine.fleet
        if outbox.acts or outbox.events or outbox.opens:
            if self.guard._is_owned():
                # A finalizer interrupts this thread.
                self.defer(self.commit)
                return
            self._carry_out(outbox.acts, self._act)
            if outbox.events or outbox.opens:
                self._carry_out(outbox.events, self._emit)
                self._carry_out(outbox.opens, self._dial)
            if not fleet.slots.all and self.losses.next_check != math.inf:
                self.losses.clear()
            self.changed()
        # An act stays in the queue while another thread carries it out.
        if machine.closing and not fleet.slots.all and not (outbox.acts or outbox.opens):
            # Again: a step that was interrupted may have left it out.
            self.losses.clear()
            self.leaks = None  # Leases that are still held have no connection any more.
            self.finish()
        if fleet.alarm < self.wakes_at or self.losses.next_check < self.wakes_at:
            self.ensure_tick()

    def _back(self, slot: Slot) -> None:
        """A lost connection is up again."""
        if not self.machine.outage.primes:
            self.tell(self.machine.recovered, slot)
        elif slot not in self.priming:
            self.priming.add(slot)
            self.prime_again(slot)

    def primed_again(self, slot: Slot, error: BaseException | None) -> None:
        """A connection that is back has been primed, or that failed with `error`."""
        self.priming.discard(slot)
        if error is None:
            self.tell(self.machine.recovered, slot)
        elif slot.state is SlotState.LOST:
            text = "pool %r: connection %d is back, but prime failed: %s: %s"
            logger.warning(text, self.name, slot.id, type(error).__name__, plain(str(error)))
            self.losses.lost_again(slot)
            self.ensure_tick()

    def check_slots_now(self, slots: list[tuple[Slot, bool]]) -> None:
        """Checks whether each slot's connection is up, and makes it connect if that is asked for."""
        for slot, connect in slots:
            self.losses.check(slot, connect=connect)
            if connect:
                self.changed()

    # --- places -------------------------------------------------------------------------------------------------

    def release(self, slot: Slot, streams: int | None, holder: Holder, *, answered: bool = False) -> None:
        """Releases the place of `holder`; `answered`: the server has answered its call."""
        try:
            with self.lock:
                now = self.monotonic()
                release = self.places.release if answered else self.places.release_unanswered
                if not release(slot, streams, now, holder):
                    return
                self.machine.settle(slot, now)
            self.commit()
        except BaseException:
            self.recover()
            raise

    def request(self, waiter: Waiter) -> None:
        """Asks for a place; the waiter is answered, maybe before this returns."""
        if self.deferred:
            self.do_deferred()
        # As `tell`, which takes any arguments: that would cost each waiter more.
        try:
            with self.lock:
                self.machine.request(waiter, self.monotonic())
            self.commit()
        except BaseException:
            self.recover()
            raise

    def open(self, opener: OpenWaiter) -> None:
        """Opens `min_size` connections; the opener is answered, maybe before this returns."""
        self.tell(self.machine.open, opener)

    def refusal(self, refusal: Refusal, waiter: Waiter | OpenWaiter) -> PoolError:
        """The error for a waiter, with the figures of this moment."""
        figures = self.machine.grants.figures_for(waiter, self.monotonic())
        return refusal_error(self.name, refusal, figures, self.machine.outage.cause)

    def withdraw(self, waiter: Waiter) -> bool:
        """The waiter gives up; returns whether it was still queued. If it has been granted a place, releases that."""
        return self.void or self.tell(self._withdraw, waiter)

    def _withdraw(self, waiter: Waiter, now: float) -> bool:
        queued = self.machine.cancel(waiter, now)
        if waiter._slot is not None and not waiter._released:
            self.machine.release(waiter._slot, waiter.streams, waiter, now)
        return queued

    def refuse_all(self, waiters: Sequence[Waiter], error: Callable[[], PoolError]) -> None:
        """Refuses waiters, given in the order of arrival. One that is answered meanwhile keeps what it has.

        The last goes first: when one goes, it may be those behind it that get a place.
        """
        for waiter in reversed(waiters):
            refusal = error()
            try:
                if self.tell(self.machine.cancel, waiter):
                    waiter.refused(refusal)
            except BaseException:
                waiter.refused(refusal)
                raise

    def is_fit(self, slot: Slot, streams: int | None, holder: Holder, waiter: Waiter | None) -> bool:
        """Whether the connection of the place just taken is up; if it is not, the place is released."""
        try:
            up = self.losses.is_up(slot)
        except BaseException:
            self.tell(self.machine.blocked, slot)
            raise
        if up:
            slot.channel.trusted_until = self.monotonic() + self.trusted_for
            return True
        self.tell(self.machine.unfit, slot, streams, holder, waiter)
        return False

    # --- calls --------------------------------------------------------------------------------------------------

    def has_resends_left(self, resends: int) -> bool:
        """Whether a call that has been sent again so often may be sent once more."""
        return resends < self.config.max_resends

    def resend_at(self, resends: int, *, at_once: bool, waits: bool = False) -> float | None:
        """When a call that the server refused may be sent again; `None` if it has been so often enough.

        Args:
            resends: How often it has been sent again so far.
            at_once: Whether the first time needs no pause, see `PoolMachine.refused_stream`.
            waits: Whether it was not refused, but waits for ready. That needs no pause.
        """
        if not self.has_resends_left(resends):
            return None
        if waits or (at_once and not resends):
            return -math.inf
        # Jitter: the server has refused many calls at once.
        return self.monotonic() + _FIRST_PAUSE * 2.0**resends * (1 - random.random() / 2)  # noqa: S311 -- no secret

    def release_unsent(self, slot: Slot, holder: Holder, began: float, status: Status, *, waits: bool) -> bool:
        """Releases the place of a call that failed, if it was never sent and is to be sent on another connection.

        Its own connection is down. Another is up, unless the call `waits` for ready. The server has sent no metadata.

        Returns:
            Whether the place was released.
        """
        channel: SlotChannel = slot.channel
        # gRPC holds a call that waits and that it cannot send. One that failed was therefore sent.
        if (waits and not channel.shows_unsent) or not channel.could_not_send(status, began, self.monotonic()):
            return False
        self.losses.call_failed(slot, status)
        if not (waits or self.machine.fleet.slots.ready):
            return False
        self.release(slot, 1, holder)
        return True

    def call_failed(self, slot: Slot, holder: Holder | None, began: float, status: Status) -> None:
        """A call failed: reports what that says of its connection and its server, and releases its place.

        Args:
            slot: Where it ran.
            holder: Holds its place; `None` for a call on a lease.
            began: When it began.
            status: How it ended.
        """
        # Before the release: a slot that carries less because a call failed on it is the more attractive.
        if status.is_of_sick_server:
            if self.losses.call_failed(slot, status):
                self.ensure_tick()
            self.tell(self.machine.failed, slot, status.code)
        if status.is_unanswered:
            overdue = status.code is grpc.StatusCode.DEADLINE_EXCEEDED
            self.tell(self.machine.unanswered, slot, holder, began if overdue else math.inf)
        elif holder is not None:
            self.release(slot, 1, holder, answered=True)

    def connectivity(self) -> grpc.ChannelConnectivity:
        """The state of the pool as a channel."""
        with self.lock:
            slots = [(slot.state, slot.channel) for slot in self.machine.fleet.slots]
            failing, closing = self.machine.fleet.addresses.failures > 0, self.machine.closing
        states = [(state, channel.state() if channel is not None else None) for state, channel in slots]
        return pool_state(states, failing=failing, closing=closing)

    # --- what finalizers defer ----------------------------------------------------------------------------------

    def do_deferred(self) -> None:
        """Does the work that finalizers have deferred."""
        if self.deferred:
            do_deferred_work(self.deferred, self.name)

    # --- time ---------------------------------------------------------------------------------------------------

    def due_at(self) -> float:
        """When the machine, a check of connections or of leases is due."""
        alarm = min(self.machine.fleet.alarm, self.losses.next_check)
        return alarm if (leaks := self.leaks) is None else min(alarm, leaks.next_deadline())

    def ensure_tick(self) -> None:
        """Ensures that `tick` is called in time. The alarm is read first, as `_sync/worker.py` explains."""
        alarm = self.due_at()
        if alarm < self.wakes_at:
            self.wake_at(alarm)

    def tick(self) -> None:
        """Does what is due."""
        self.do_deferred()
        now = self.monotonic()
        if self.machine.fleet.alarm <= now:
            for slot in openings_to_extend(self.machine.fleet.slots, self.clock, now):
                self.tell(self.machine.extend_opening, slot)
            self.tell(self.machine.tick)
        if self.losses.next_check <= now:
            self.check_slots(self.losses.to_check(now))
        if (leaks := self.leaks) is not None and leaks.next_deadline() <= now:
            with self.lock:
                for leaked in leaks.overdue(now, self.name):
                    self.machine.outbox.append(Notify(leaked))
            self.commit()

    # --- the end ------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether `close()` has been called."""
        return self.machine.closing

    def close(self, grace: float) -> None:
        """Begins the end: waiters are refused; what is in flight has `grace` seconds."""
        self.do_deferred()
        self.tell(self.machine.close, self.monotonic() + grace)

    def close_dropped(self) -> None:
        """Closes what is left of a pool that has been dropped without a `close()`."""
        self.close(0.0)
