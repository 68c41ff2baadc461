"""What leases of both worlds share: a place on one connection, or all of it, which is released exactly once.

The first `release` does that or, if calls still run then, the end of the last of them. For a lease that was never
released, the garbage collector does.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from .._machine.effects import Notify
from .._values.errors import LeaseReleasedError
from .._values.events import Released
from .driver import Driver
from .finalizers import LeftPlace, interrupts, interrupts_package
from .leaks import Held, LeakWatch


class LeaseBase:
    """Some streams of one connection of a pool, or all of it."""

    # Its name in its `repr`.
    _shown_as: str

    # Set by `ChannelPool.acquire`: calling an __init__ would double the cost of creating a lease; reading a default of
    # the class would cost more than setting it. The defaults are for the finalizer, if a handler raises first.
    _released: bool = True
    # Calls that run on this lease: the last one releases the place if the lease is released by then.
    _calls: int = 0
    # What else to end with the lease: the leak watch, subscriptions.
    _at_release: tuple[Callable[[], None], ...] = ()
    _driver: Driver
    # The pool must live as long as its leases do.
    _pool: Any
    _streams: int | None
    # A Slot; None until the place has been taken, when only the finalizer may see the lease.
    _slot: Any = None
    _used_at: float

    def _follow(self, stack: str) -> None:
        """Reports the lease, acquired at `stack`, if it is held for too long; emits its release."""
        driver = self._driver
        if (leaks := driver.leaks) is not None:
            self._watch_for_leak(leaks, stack)
        if driver.announcer.emits_releases:
            emit = partial(driver.tell, partial(_queue_release, driver, self._slot.id, driver.monotonic()))
            self._at_release = (*self._at_release, emit)

    def _watch_for_leak(self, leaks: LeakWatch, stack: str) -> None:
        driver, ticket = self._driver, object()
        # First: a signal handler may raise anywhere here.
        self._at_release = (*self._at_release, partial(_forget_leak, driver, ticket))
        held = Held(self._slot.id, driver.monotonic(), stack)
        with driver.lock:
            leaks.taken(ticket, held)
        driver.ensure_tick()

    # --- releasing ----------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Releases the lease; its place is free at once, or when the last of its calls ends.

        Later releases do nothing; so does a release in a forked child.
        """
        driver = self._driver
        if driver.void:
            return
        # A function: as a local name it is faster to call.
        lock, monotonic = driver.lock, driver.monotonic
        if lock.locked() and interrupts_package():
            driver.defer(self.release)
            return
        try:
            with lock:
                if self._released:
                    return
                if self._calls:
                    # The last of them releases the place.
                    self._released, more = True, 0
                else:
                    now, slot = monotonic(), self._slot
                    # As `Places.release_unanswered`, without a call of its own.
                    is_silent = slot.silent_at == slot.used_at
                    more = driver.places.release(slot, self._streams, now, self)
                    if is_silent:
                        slot.silent_at = now
                    if more:
                        driver.machine.settle(slot, now)
            if more:
                driver.commit()
        except BaseException:
            driver.recover()
            raise
        if self._at_release:
            self._end_the_rest()

    def discard(self) -> None:
        """Releases the lease and closes its connection, which is not used again.

        A whole connection is closed at once, and calls on it are cancelled. A shared one takes no new calls, and
        closes when the calls of others have ended. After a release this does nothing.
        """
        driver = self._driver
        if driver.void:
            return
        if interrupts(driver):
            driver.defer(self.discard)
            return
        if driver.tell(self._discard):
            self._end_the_rest()

    def _discard(self, now: float) -> bool:
        if self._released:
            return False
        # Calls on it end without releasing anything: the place is released here.
        self._calls = -1
        self._driver.machine.discard(self._slot, self._streams, self, now)
        return True

    def _end_the_rest(self) -> None:
        for end in self._at_release:
            end()
        self._at_release = ()

    def __del__(self) -> None:
        """Releases a lease that was never released. No call runs on it: calls hold their lease.

        So a released lease that still counts calls has its place yet, and one that has something left to end was not
        released to the end: a signal handler has raised.
        """
        released = self._released
        if released and self._calls <= 0 and not self._at_release:
            return
        driver, slot = self._driver, self._slot
        if slot is None or driver.void:
            return
        where = self._where_acquired()
        for end in self._at_release:
            driver.defer(end)
        if self._calls > 0 or not released:
            driver.defer(LeftPlace(driver, slot, self._streams))
        if not released:
            self._released = True
            text = f"a lease of channel {slot.id} of pool {driver.name!r} was dropped without release(){where}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def _where_acquired(self) -> str:
        """For the warning: known if the pool watches for leaks, and has not reported this one."""
        leaks = self._driver.leaks
        tickets = (end.args[1] for end in self._at_release if isinstance(end, partial) and end.func is _forget_leak)
        stack = None if leaks is None else leaks.stack_of(next(tickets, None))
        return "" if stack is None else f"; it was acquired here:\n{stack}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Leases do not pickle.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "a lease cannot be copied or sent to another process: its connection is in this one; send the pool, and "
            "acquire a lease there"
        )

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def created_at(self) -> dt.datetime:
        """When the connection was opened; an aware `datetime`."""
        return self._driver.date_of(self._slot.opened_at)

    @property
    def used_at(self) -> dt.datetime:
        """When the connection was last returned before this lease, or opened; an aware `datetime`."""
        return self._driver.date_of(self._used_at)

    def __repr__(self) -> str:
        """The lease at a glance."""
        what = "all" if self._streams is None else f"{self._streams} streams"
        state = "released" if self._released else "held"
        return f"<{self._shown_as} of {what} of channel {self._slot.id} of pool {self._driver.name!r}: {state}>"

    # --- its calls ----------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._driver.void:
            raise self._driver.forked_error("this lease was acquired")
        if self._released:
            figures = self._driver.machine.figures()
            text = f"pool {self._driver.name!r}: the lease has been released ({figures}); acquire a new one"
            raise LeaseReleasedError(text)

    def _begin_call(self) -> int:
        """A call begins; returns how many run then.

        Raises:
            LeaseReleasedError: The lease has been released.
            PoolForkedError: The lease was taken before a fork.
        """
        driver = self._driver
        if not driver.void:
            with driver.lock:
                if not self._released:
                    self._calls += 1
                    return self._calls
        self._check_usable()
        return 0

    def _end_call(self, *, answered: bool = False) -> None:
        """A call is over; the last one after the release releases the place. Never raises.

        Args:
            answered: Whether the server has answered it.
        """
        driver = self._driver
        if driver.void:
            return
        more = False
        try:
            with driver.lock:
                if self._calls < 0:
                    return
                self._calls -= 1
                if answered:
                    self._slot.used_at = driver.monotonic()
                if not self._calls and self._released:
                    now, slot = driver.monotonic(), self._slot
                    if driver.places.release_unanswered(slot, self._streams, now, self):
                        more = True
                        driver.machine.settle(slot, now)
            if more:
                driver.commit()
        except BaseException:
            driver.recover()
            raise


def _queue_release(driver: Driver, channel: int, since: float, now: float) -> None:
    """Emits the release of a lease, which was taken at the moment `since`, after the events that came before it."""
    driver.machine.outbox.append(Notify(Released(pool=driver.name, channel=channel, held=now - since)))


def _forget_leak(driver: Driver, ticket: object) -> None:
    """A lease that was watched for leaks has been released."""
    if (leaks := driver.leaks) is not None:
        with driver.lock:
            leaks.returned(ticket)
