"""What a lease is in both worlds: a place on one connection, which is given back exactly once.

By the first release, or, if calls still run then, by the last of them; by the garbage collector for a lease that
nobody released.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from ._driver import Driver
from ._errors import LeaseReleasedError
from ._interrupted import interrupts_package
from ._leaks import LeakWatch
from ._machine import NOTHING


class LeaseBase:
    """A place on one connection of a pool."""

    # What it is called where it is shown.
    _shown_as: str

    # Set by `ChannelPool.acquire`: to call an __init__ would cost as much again as all else that makes a lease; to read
    # a default of the class would cost more than to set it.
    _released: bool
    # Calls that run on this lease: the last one gives the place back if the lease is released by then.
    _calls: int
    # What else ends with the lease: the watch for a leak, subscriptions.
    _at_release: tuple[Callable[[], None], ...]
    _core: Driver
    # The pool must live as long as its leases do.
    _pool: Any
    _streams: int | None
    # A Slot; None until the place has been taken, when only the finalizer may see the lease.
    _slot: Any = None
    _used_at: float

    def watch_for_leak(self, leaks: LeakWatch, stack: str) -> None:
        """Has the lease, which was asked for there, reported if it is held for too long."""
        core = self._core
        with core.lock:
            ticket = leaks.taken(self._slot.id, core.monotonic(), stack)
        self._at_release = (*self._at_release, partial(core.forget_leak, ticket))
        core.see_to_alarm()

    def tell_when_released(self) -> None:
        """Has listeners told when the lease is given back, and how long it was held."""
        core = self._core
        self._at_release = (*self._at_release, partial(core.tell_released, self._slot.id, core.monotonic()))

    # --- giving back --------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Gives the lease back; its place is free at once, or when the last of its calls ends.

        Later releases do nothing; so does a release in a forked child.
        """
        core = self._core
        if core.void:
            return
        if core.lock.locked() and interrupts_package():
            core.defer(self.release)
            return
        effects = NOTHING
        try:
            with core.lock:
                if self._released:
                    return
                if not self._calls:
                    monotonic = core.monotonic
                    effects = core.machine.release(self._slot, self._streams, monotonic())
                # Not before: should this thread be interrupted, the finalizer gives the place back.
                self._released = True
        finally:
            if effects:
                core.commit(effects)
        if self._at_release:
            self._end_the_rest()

    def discard(self) -> None:
        """Gives the lease back and closes its connection, which is not used again.

        A whole connection is closed at once, and calls on it are cancelled. A shared one takes no new calls, and
        closes when those of the others have ended. After a release, does nothing.
        """
        core = self._core
        if core.void:
            return
        if core.lock.locked() and interrupts_package():
            core.defer(self.discard)
            return
        with core.lock:
            if self._released:
                return
            self._released = True
            # Its calls end without giving anything back: the place is given back here.
            self._calls = -1
            effects = core.machine.discard(self._slot, self._streams, core.monotonic())
        core.commit(effects)
        self._end_the_rest()

    def _end_the_rest(self) -> None:
        for end in self._at_release:
            end()
        self._at_release = ()

    def __del__(self) -> None:
        """Gives back a lease that nobody released. No call runs on it: calls hold their lease."""
        slot = self._slot
        if slot is None or self._released or self._core.void:
            return
        self._released = True
        core = self._core
        core.defer(partial(core.release, slot, self._streams))
        for end in self._at_release:
            core.defer(end)
        text = f"a lease of channel {slot.id} of pool {core.name!r} was dropped without release()"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def created_at(self) -> dt.datetime:
        """When the connection was opened; an aware `datetime`."""
        return self._core.date_of(self._slot.opened_at)

    @property
    def used_at(self) -> dt.datetime:
        """When the connection was last returned before this lease, or opened; an aware `datetime`."""
        return self._core.date_of(self._used_at)

    def __repr__(self) -> str:
        """The lease at a glance."""
        what = "all" if self._streams is None else f"{self._streams} streams"
        state = "released" if self._released else "held"
        return f"<{self._shown_as} of {what} of channel {self._slot.id} of pool {self._core.name!r}: {state}>"

    # --- its calls ----------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._core.void:
            raise self._core.forked_error("this lease was acquired")
        if self._released:
            figures = self._core.machine.figures()
            text = f"pool {self._core.name!r}: the lease has been released ({figures}); acquire a new one"
            raise LeaseReleasedError(text)

    def begin_call(self) -> None:
        """A call begins.

        Raises:
            LeaseReleasedError: The lease has been given back.
            PoolForkedError: The lease was taken before a fork.
        """
        core = self._core
        if not core.void:
            with core.lock:
                if not self._released:
                    self._calls += 1
                    return
        self._check_usable()

    def end_call(self) -> None:
        """A call is over; the last after the release gives the place back. Never raises."""
        core = self._core
        if core.void:
            return
        with core.lock:
            if self._calls < 0:
                return
            self._calls -= 1
            if self._calls or not self._released:
                return
            effects = core.machine.release(self._slot, self._streams, core.monotonic())
        if effects:
            core.commit(effects)
