"""The event loop that a pool is bound to: the loop of its first use, which is its home.

All effects of the machine are carried out there. What happens on another thread (a finalizer, a change of the bounds)
is reported to the machine at once, under the lock, and its effects are left to the loop. A pool is used on its own loop
only, except for what is safe anywhere, such as `stats()`.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Iterable
from typing import Any

from .._shared.channel_source import ChannelSource
from .._shared.clock import Clock
from .._shared.driver import Driver
from .._shared.token_lock import token_lock
from .._values.config import PoolConfig
from .._values.errors import WrongEventLoopError
from .._values.listener import Listener


class LoopBound(Driver):
    """A driver that acts on one event loop."""

    def __init__(
        self,
        source: ChannelSource,
        config: PoolConfig,
        *,
        name: str,
        listeners: Iterable[Listener],
        clock: Clock,
    ) -> None:
        """Is not bound to a loop yet; see `ChannelPool` for the arguments."""
        super().__init__(source, config, name=name, listeners=listeners, clock=clock)
        # `None` until the first use; in a forked child, an object that equals no loop.
        self.loop: Any = None
        # The thread of the first use.
        self._thread = 0
        # Not that of the task that happens to make the pool open a connection, whose deadline and trace are its own.
        self._context = contextvars.Context()

    @abc.abstractmethod
    def bound(self) -> None:
        """The driver has been bound to its loop."""

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
        """Called before each use of the loop: binds the pool to the running loop, if it is not bound yet.

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
            self.loop, self._thread = running, threading.get_ident()
            self.bound()
        elif running is None and self.loop.is_running():
            raise self._wrong_loop()

    def _wrong_loop(self) -> WrongEventLoopError:
        state = "closed" if self.loop.is_closed() else "another one"
        bound = f"pool {self.name!r}: bound to the event loop of its first use, which is {state}"
        return WrongEventLoopError(f"{bound} ({self.machine.figures()}); create a pool for each loop")

    def is_at_home(self) -> bool:
        """Whether this is the pool's loop or, while that does not run, the thread where it was bound."""
        running = _get_running_loop()
        if running is not None:
            return running is self.loop
        return self._thread == threading.get_ident() and (self.void or not self.loop.is_running())

    def is_orphan(self) -> bool:
        """Whether its loop is closed, so that nothing that is deferred will be done."""
        return self.loop is not None and not self.void and self.loop.is_closed()

    def commit(self) -> None:
        """Carries out what the machine asked for; on the loop, if there is one.

        What is asked for meanwhile is carried out afterwards, not nested: a place that a thousand waiters in turn do
        not need would otherwise be released a thousand calls deep.
        """
        if self.loop is None:
            super().commit()
        elif self.void or self.loop.is_closed():
            # No waiter can be notified, and no channel can be closed.
            return
        elif self.is_at_home():
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
        # A closed loop has nothing more to do.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(work, context=self._context)

    def defer(self, work: Callable[[], object]) -> None:
        """Queues `work` for the next operation, or for the loop."""
        self.deferred.append(work)
        self.call_soon(self.do_deferred)

    def call_soon(self, work: Callable[[], object]) -> None:
        """Does `work` on the loop, if the pool has one that is not closed. Safe in finalizers."""
        if self.loop is not None and not self.void:
            self._call_soon(work)

    def do_deferred(self) -> None:
        """Does the work that finalizers left, unless this is another thread or loop: it is of calls, and gRPC's."""
        if self.loop is None or self.is_at_home():
            super().do_deferred()

    def become_void(self) -> None:
        """In a forked child: this is not used any more."""
        self.void = True
        self.loop = object()
        # The old one may have been held by a thread of the parent.
        self.lock = token_lock()
