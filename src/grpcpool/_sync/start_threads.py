"""Threads that start the calls whose caller is not there to do it, in the order of their grants.

Places become free on gRPC's callback threads, where no call may be started. One thread starts calls as long as none of
them blocks. Interceptors in the factory's channels may block: they may make calls over the same pool, or wait for the
end of the call. So a second thread stands by while calls wait to be started. It takes over when one start has kept the
first thread for some milliseconds. There are never more threads than starts that block, and two; all end when they have
been idle for a while.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from .serial_runner import run_logged

# A start that takes so long blocks.
_BLOCKS_AFTER = 0.02

# Starting a thread costs as much as a hundred starts. A busy pool keeps it.
_LINGERS_FOR = 0.5


class StartThreads:
    """Runs work in order; work that blocks does not hold up what comes after it."""

    def __init__(self, name: str, *, lingers_for: float = _LINGERS_FOR) -> None:
        """Does not start a thread, called `name`, yet; a thread that is idle for `lingers_for` seconds ends."""
        self._name = name
        self._changed = threading.Condition(threading.Lock())
        self._work: deque[Callable[[], None]] = deque()
        # The thread that takes work now, the one that stands by, and all.
        self._taker: threading.Thread | None = None
        self._standby: threading.Thread | None = None
        self._threads: set[threading.Thread] = set()
        # Since when the taker does what it took last; 0 while it waits for work.
        self._busy_since = 0.0
        self._lingers_for = lingers_for

    def do(self, work: Callable[[], None]) -> None:
        """Queues `work`. If no thread can be started, as at the end of the process, runs it before it returns."""
        with self._changed:
            self._work.append(work)
            if self._taker is None:
                self._taker = self._new_thread(self._take)
            elif self._busy_since and self._standby is None:
                self._standby = self._new_thread(self._stand_by)
            self._changed.notify_all()
            runs = self._taker is not None
        while not runs and self._work:
            run_logged(self._work.popleft())

    def is_current(self) -> bool:
        """Whether the caller runs on one of the threads."""
        return threading.current_thread() in self._threads

    def join(self, timeout: float) -> None:
        """Waits until the queued work is done and the threads have ended."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._lingers_for = 0.0
            self._changed.notify_all()
        # While there are threads: until the work is done, one may start another.
        while threads := self._others_alive():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            threads[0].join(left)

    def _others_alive(self) -> list[threading.Thread]:
        me = threading.current_thread()
        with self._changed:
            return [thread for thread in self._threads if thread is not me and thread.is_alive()]

    def _new_thread(self, run: Callable[[], None]) -> threading.Thread | None:
        """A new thread; `None` if none can be started. Under the lock."""
        if sys.is_finalizing():
            return None
        thread = threading.Thread(target=run, name=self._name, daemon=True)
        # No thread removes itself, because it would still be running then.
        self._threads = {thread, *(known for known in self._threads if known.is_alive())}
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            return None
        return thread

    def _take(self) -> None:
        """Does the work, until there is none, or another thread has taken over."""
        me = threading.current_thread()
        while (work := self._next(me)) is not None:
            run_logged(work)
            del work

    def _next(self, me: threading.Thread) -> Callable[[], None] | None:
        with self._changed:
            if self._taker is not me:
                return None
            self._busy_since = 0.0
            self._changed.wait_for(lambda: self._work or not self._lingers_for, self._lingers_for)
            if not self._work:
                self._taker = None
                return None
            self._busy_since = time.monotonic()
            work = self._work.popleft()
            if self._work:
                if self._standby is None:
                    self._standby = self._new_thread(self._stand_by)
                # One that looked while the taker waited for work would look again only when it has lingered.
                self._changed.notify_all()
            return work

    def _stand_by(self) -> None:
        """Takes over when the taker blocks while work waits; ends when that has not happened for a while."""
        me = threading.current_thread()
        with self._changed:
            idle_since = time.monotonic()
            while True:
                now = time.monotonic()
                busy_since = self._busy_since
                if self._work and busy_since:
                    idle_since = now
                    if now - busy_since >= _BLOCKS_AFTER:
                        self._taker, self._standby = me, None
                        break
                    self._changed.wait(busy_since + _BLOCKS_AFTER - now)
                elif now - idle_since >= self._lingers_for:
                    self._standby = None
                    return
                else:
                    self._changed.wait(self._lingers_for)
            if self._work:
                self._standby = self._new_thread(self._stand_by)
        self._take()
