"""What both drivers of a pool are: one lock around the machine, and the order in which its effects are carried out.

Every change goes the same way: take the lock, tell the machine, let go, carry out the effects (`commit`). Nothing
foreign (factory, prime, listeners, gRPC) is ever called with the lock held. The asyncio driver has a lock too: a
lease may be dropped, and a snapshot be taken, on any thread.

What a driver adds are hands: how connections are opened and closed, who ticks, how the end is waited for
(`_sync/core.py`, `_aio/core.py`). It does not know the pool that it serves, so that a pool that nobody holds any more
is collected although its background work goes on. Leases and calls hold both.
"""

from __future__ import annotations

import abc
import math
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, assert_never

import grpc

from ._announcer import Announcer, logger
from ._clock import Clock, dates_of
from ._config import PoolConfig
from ._effects import Close, Effect, Grant, Interrupted, Notify, Open, Refuse, Started, Watch
from ._errors import ConnectError, PoolForkedError, refusal_error
from ._leaks import LeakWatch
from ._listener import Leaked, Listener, Released
from ._machine import NOTHING, OpenWaiter, PoolMachine
from ._maker import Maker
from ._pool_state import pool_state
from ._queue import Waiter
from ._slot import Slot, SlotState
from ._slot_channel import Methods, SlotChannel
from ._status import tells_of_loss

# How often a lost connection is asked whether it is back: soon at first, then with patience. One that failed a call
# and looks well is asked as often, until `_SUSPECT_FOR`: gRPC may come to know of a loss a little later than its calls.
_FIRST_POLL, _LONGEST_POLL, _SUSPECT_FOR = 0.001, 0.25, 0.05
_NOTICED_WITHIN = 0.02

# How often connections are looked at that nobody uses: their server may have closed them. To wait to be told is no
# way: on asyncio, what waits for a channel at a fork makes gRPC crash in a quarter of the children (measured, 1.85.1).
_LOOKS_EVERY = 1.0

# When a server goes away it takes many connections with it, and should not be met by all of them at once.
_SPREAD = 0.05


def _reconnect_delay(lost: int) -> float:
    """Seconds that a connection is to wait before it connects again, the last of so many that were `lost`."""
    return random.random() * _SPREAD * max(0, lost - 1)  # noqa: S311 -- no secret


class Driver(abc.ABC):
    """What acts for one pool."""

    # Seconds for which a connection that was found up is not asked again before it is leased. To ask costs as much as
    # half an acquire. What counts is that it was seen up, not that it was used meanwhile: a dead connection fails its
    # calls faster than a live one serves them, and would be used ever more often.
    trusted_for: float

    # What to do in a forked child.
    after_fork: str

    def __init__(
        self,
        maker: Maker,
        config: PoolConfig,
        *,
        name: str,
        listeners: Iterable[Listener],
        clock: Clock,
    ) -> None:
        """Makes an empty pool's driver; see `ChannelPool` for the arguments."""
        self._maker = weakref.ref(maker)
        self.config = config.replace(prime=None)
        self.name = name
        self.clock = clock
        self.monotonic = clock.monotonic
        self.date_of = dates_of(clock)
        self.lock = threading.Lock()
        self.machine = PoolMachine(self.config, name=name, random=random.random)
        self.announcer = Announcer(listeners)
        self.leaks = LeakWatch(config.leak_threshold) if config.leak_threshold is not None else None
        self.methods = Methods()
        # Slots that are lost, or may be, with the moment of the next look and the time between the looks.
        self._watched: dict[Slot, tuple[float, float]] = {}
        self._looks_at = self.monotonic() + _LOOKS_EVERY
        # What finalizers leave to be done, for they must not take the lock.
        self.deferred: deque[Callable[[], object]] = deque()
        # In a forked child, the parent's driver: never touched again, but to be told that it is void.
        self.void = False

    # --- hands --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def open_channel(self, slot: Slot) -> None:
        """Has the slot's connection opened in the background; how that ends is reported to the machine."""

    @abc.abstractmethod
    def close_channels(self, slots: Sequence[Slot]) -> None:
        """Has the channels of these slots closed in the background, and what is still being done to open them."""

    @abc.abstractmethod
    def changed(self) -> None:
        """The state of the pool as a channel may have changed."""

    @abc.abstractmethod
    def finish(self) -> None:
        """The pool is closed, and its last connection is gone."""

    @abc.abstractmethod
    def see_to_alarm(self) -> None:
        """Has `tick` called at `alarm`, which may have changed."""

    @abc.abstractmethod
    def defer(self, work: Callable[[], object]) -> None:
        """Has `work` done soon, where the driver's work is done. Safe in finalizers."""

    def maker(self) -> Maker:
        """What of the user's makes connections.

        Raises:
            ConnectError: The pool has been dropped.
        """
        maker = self._maker()
        if maker is None:
            raise ConnectError("the pool has been dropped")
        return maker

    # --- where it may be used -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def check_use(self, *, anywhere: bool = False) -> None:
        """Raises an error where the pool may not be used; `anywhere`: also by threads and loops it is not bound to."""

    def forked_error(self, what: str) -> PoolForkedError:
        """What whoever uses something of before a fork is told: `what` it is; the figures are those of the fork."""
        return PoolForkedError(
            f"pool {self.name!r}: {what} before the fork ({self.machine.figures()}); {self.after_fork}"
        )

    # --- driving the machine ------------------------------------------------------------------------------------

    def tell(self, event: Callable[..., Sequence[Effect]], *what: Any) -> None:
        """Tells the machine of an event, as of now, and carries out what it asks for."""
        with self.lock:
            effects = event(*what, self.monotonic())
        self.commit(effects)

    def commit(self, effects: Sequence[Effect]) -> None:
        """Carries out what the machine asked for. Called without the lock, after every change but the smallest."""
        if self.void:
            return
        try:
            self._carry_out(effects)
        finally:
            if effects:
                self.changed()
            if self.machine.closing and not len(self.machine.fleet.slots):
                self._watched.clear()
                self.finish()
            self.see_to_alarm()
        for effect in effects:
            if isinstance(effect, Interrupted):
                raise effect.error

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        to_close = [effect.slot for effect in effects if isinstance(effect, Close)]
        if to_close:
            self.close_channels(to_close)
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
                    self.open_channel(effect.slot)

    def _answer(self, effect: Effect) -> None:
        match effect:
            case Grant(waiter=waiter, slot=slot):
                waiter.granted(slot)
            case Refuse(waiter=waiter):
                waiter.refused(refusal_error(self.name, effect.refusal, effect.figures, effect.cause))
            case Started(waiter=waiter):
                waiter.granted(None)
            case Watch(slot=slot):
                self._watch(slot)
            case Open() | Close() | Notify() | Interrupted():
                pass
            case _:
                assert_never(effect)

    # --- places -------------------------------------------------------------------------------------------------

    def release(self, slot: Slot, streams: int | None) -> None:
        """Gives a place back."""
        effects = NOTHING
        try:
            with self.lock:
                effects = self.machine.release(slot, streams, self.monotonic())
        finally:
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
        """As `commit`, but should it be interrupted, the waiter, who is the caller, has his answer all the same."""
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
        if slot.state is not SlotState.READY or channel.is_up(connect=True):
            channel.trusted_until = now + self.trusted_for
            return True
        self.tell(self.machine.unfit, slot, streams)
        return False

    # --- calls --------------------------------------------------------------------------------------------------

    def call_deadline(self, timeout: float | None, now: float) -> float:
        """Until when a call may wait: its own deadline, or, if it has none, the configured time."""
        if timeout is None:
            timeout = self.config.acquire_timeout
        # In this order `max` takes what is no number for past, as gRPC does: among the deadlines it would hide others.
        return math.inf if timeout is None else max(now, now + timeout)

    def call_failed(self, slot: Slot, code: grpc.StatusCode | None, details: str) -> None:
        """A call failed; if its connection is down, the slot gets no more while another is up."""
        channel: SlotChannel = slot.channel
        if code is not grpc.StatusCode.UNAVAILABLE or slot.state is not SlotState.READY:
            return
        error = ConnectError(details)
        if channel.state() is not grpc.ChannelConnectivity.READY:
            self.tell(self.machine.lost, slot, error)
        elif tells_of_loss(code, details):
            self.tell(self.machine.lost, slot, error)
            # Not before gRPC has had the time to notice it, too.
            at, pause = self._watched.get(slot, (0.0, _FIRST_POLL))
            self._watched[slot] = (max(at, self.monotonic() + _NOTICED_WITHIN), pause)
            self.see_to_alarm()
        else:
            self._watched.setdefault(slot, (self.monotonic() + _FIRST_POLL, _FIRST_POLL))
            self.see_to_alarm()

    def connectivity(self) -> grpc.ChannelConnectivity:
        """The state of the pool as a channel."""
        with self.lock:
            slots = [(slot.state, slot.channel) for slot in self.machine.fleet.slots]
            failing = self.machine.last_error is not None
        states = [(state, channel.state() if channel is not None else None) for state, channel in slots]
        return pool_state(states, failing=failing)

    # --- what finalizers leave ----------------------------------------------------------------------------------

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
                logger.exception("pool %r: work that a finalizer queued failed", self.name)

    def forget_leak(self, ticket: int) -> None:
        """A lease that was watched for being held too long has been given back."""
        if self.leaks is not None:
            with self.lock:
                self.leaks.returned(ticket)

    def tell_released(self, channel: int, since: float) -> None:
        """A lease that listeners want to know of has been given back."""
        self.announcer.tell(Released(pool=self.name, channel=channel, held=self.monotonic() - since))

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def alarm(self) -> float:
        """When the next tick is due."""
        alarm = self.machine.next_deadline()
        if self.leaks is not None:
            alarm = min(alarm, self.leaks.next_deadline())
        if self.machine.fleet.slots.ready:
            alarm = min(alarm, self._looks_at)
        # A copy: another thread may add a slot meanwhile.
        for at, _ in tuple(self._watched.values()):
            alarm = min(alarm, at)
        return alarm

    def tick(self) -> None:
        """Does what is due."""
        self.do_deferred()
        now = self.monotonic()
        if self.machine.next_deadline() <= now:
            with self.lock:
                effects = self.machine.tick(now)
            self.commit(effects)
        self._look_after_watched(now)
        if self._looks_at <= now:
            self._looks_at = now + _LOOKS_EVERY
            self._look_after_ready()
        self._report_leaks(now)

    def _report_leaks(self, now: float) -> None:
        if self.leaks is None or self.leaks.next_deadline() > now:
            return
        with self.lock:
            late = self.leaks.overdue(now)
        for held in late:
            leaked = Leaked(pool=self.name, channel=held.channel, held=now - held.since, stack=held.stack)
            self.announcer.tell(leaked)

    # --- connections that are down, or may be -------------------------------------------------------------------

    def _watch(self, slot: Slot) -> None:
        """The slot's connection is down: has it looked after, which has it connect."""
        delay = _FIRST_POLL + _reconnect_delay(self.machine.fleet.slots.lost)
        self._watched[slot] = (self.monotonic() + delay, _FIRST_POLL)

    def _look_after_watched(self, now: float) -> None:
        for slot, (at, pause) in tuple(self._watched.items()):
            if slot.state not in (SlotState.LOST, SlotState.READY):
                self._watched.pop(slot, None)
            elif at <= now:
                longer = min(2 * pause, _LONGEST_POLL)
                self._watched[slot] = (now + longer, longer)
                self._look_at(slot)
                if slot.state is SlotState.READY and longer > _SUSPECT_FOR:
                    self._watched.pop(slot, None)
                self.changed()

    def _look_after_ready(self) -> None:
        with self.lock:
            ready = self.machine.fleet.slots.in_state(SlotState.READY)
        for slot in ready:
            # Without having it connect, which is not to be done by all at once.
            self._look_at(slot, connect=False)

    def _look_at(self, slot: Slot, *, connect: bool = True) -> None:
        """Looks whether the connection of the slot, ready or lost, is up, and tells the machine if that is news."""
        channel: SlotChannel = slot.channel
        up = channel.is_up(connect=connect)
        if up and slot.state is SlotState.LOST:
            self._watched.pop(slot, None)
            self.tell(self.machine.recovered, slot)
        elif not up and slot.state is SlotState.READY:
            self._watched.pop(slot, None)
            self.tell(self.machine.lost, slot, None)

    # --- the end ------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether `close()` has been called."""
        return self.machine.closing

    def close(self, grace: float) -> None:
        """Begins the end: who waits is refused; what is in flight has `grace` seconds."""
        self.do_deferred()
        now = self.monotonic()
        with self.lock:
            effects = self.machine.close(now + grace, now)
        self.commit(effects)
