"""Work that threads do in order: the starts of calls whose caller is not there, callbacks, checks of connections.

Places become free on gRPC's callback threads, where no call may be started. One thread starts calls as long as none of
them blocks. Interceptors in the factory's channels may block: they may make calls over the same pool, or wait for the
end of the call. So another thread takes over the queue when one start has kept the first for some milliseconds. No
thread stands by for that: the pool's worker calls `take_over` when it is due. There are never more threads than pieces
of work that block, and one. All end when they have been idle for a while.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from .._shared.announcer import logger
from .._shared.thread_start import NoThreadError, join, new_thread, start

# A start that takes so long blocks. With each thread that a start keeps it takes longer to find that out: on a slow
# machine many starts take long, and more threads would not make them faster.
_BLOCKS_AFTER = 0.02

# At the end of the process, what is queued is waited for, but work that takes longer than this is left.
_EXITS_AFTER = 2.0

# Starting a thread costs as much as a hundred starts. A busy pool keeps it.
_LINGERS_FOR = 0.5


# Those whose work is to be done before the interpreter ends.
_at_exit: weakref.WeakSet[WorkQueue] = weakref.WeakSet()


class WorkQueue:
    """Runs work in order, on threads that exist only while there is work."""

    def __init__(
        self,
        name: str,
        look_at: Callable[[float], object],
        monotonic: Callable[[], float],
        guard: threading.RLock,
        *,
        blocks_after: float = _BLOCKS_AFTER,
        lingers_for: float = _LINGERS_FOR,
        at_exit: bool = False,
    ) -> None:
        """Starts no thread yet.

        Args:
            name: Of the threads.
            look_at: Ensures that `take_over` is called at that moment. Called under the guard.
            monotonic: Returns the moment.
            guard: See `Driver.guard`.
            blocks_after: The seconds after which work that is still being done no longer holds up what comes after it.
                If infinite, one thread does all.
            lingers_for: The seconds after which a thread that is idle ends.
            at_exit: Whether what is queued is done before the interpreter ends, as gRPC's thread does it at once.
        """
        self._name = name
        self._look_at = look_at
        self._monotonic = monotonic
        # Taken directly: if a signal handler raises while a condition is entered, its lock stays locked.
        self._guard = guard
        self._changed = threading.Condition(self._guard)
        self._work: deque[Callable[[], object]] = deque()
        # The thread that takes work now, and all.
        self._taker: threading.Thread | None = None
        self._threads: set[threading.Thread] = set()
        # One that is being started, to be the next taker.
        self._coming: threading.Thread | None = None
        # Since when the taker does what it took last; `None` while it waits for work.
        self._busy_since: float | None = None
        self._blocks_after = blocks_after
        self._lingers_for = lingers_for
        # When `take_over` is due: while work waits for a start, when that start has taken too long.
        self.alarm = math.inf
        # How much has been begun.
        self._begun = 0
        if at_exit:
            self._process = os.getpid()
            _at_exit.add(self)

    def do(self, work: Callable[[], object]) -> None:
        """Queues `work`. If no thread can be started, as at the end of the process, runs it before it returns."""
        taker = None
        try:
            with self._guard:
                self._work.append(work)
                if self._taker is None and self._coming is None:
                    taker = new_thread(self._take, self._name)
                    self._expect(taker)
                else:
                    self._supervise()
                self._changed.notify()
            if taker is not None:
                start(taker)
        except NoThreadError:
            self._does_not_come(taker)
            # Another thread may do the same.
            with contextlib.suppress(IndexError):
                while True:
                    run_logged(self._work.popleft())
        except BaseException:
            self._does_not_come(taker)
            if self._work:
                # What has been queued is done: others may have counted on this thread, too.
                self.do(nothing)
            raise

    def take_over(self, now: float) -> None:
        """If a start blocks while work waits, another thread takes the work from here on."""
        if self.alarm > now:
            return
        taker = None
        try:
            with self._guard:
                self.alarm = math.inf
                blocks = self._busy_since is not None and now >= self._blocks_at(self._busy_since)
                if self._work and blocks and self._coming is None:
                    taker = new_thread(self._take, self._name)
                    self._expect(taker)
                else:
                    self._supervise()
            if taker is not None:
                start(taker)
        except BaseException as error:
            # That is tried again.
            self._does_not_come(taker)
            with self._guard:
                if self._busy_since is not None:
                    self._busy_since = now
                self._supervise()
            if not isinstance(error, NoThreadError):
                raise

    def _supervise(self) -> None:
        """Asks for a look at the start that is being done, if work waits for it, when it has taken too long."""
        if not self._work or self._blocks_after == math.inf:
            self.alarm = math.inf
        elif self._busy_since is not None and self.alarm == math.inf:
            self.alarm = self._blocks_at(self._busy_since)
            self._look_at(self.alarm)

    def _blocks_at(self, busy_since: float) -> float:
        return busy_since + self._blocks_after * max(1, sum(thread.is_alive() for thread in self._threads))

    def is_current(self) -> bool:
        """Whether the caller runs on one of the threads."""
        return threading.current_thread() in self._threads

    def join(self, timeout: float) -> None:
        """Waits until the queued work is done and the threads have ended, or no more work begins within `timeout`."""
        begun, deadline = self._begun, time.monotonic() + timeout
        with self._guard:
            self._lingers_for = 0.0
            self._changed.notify()
        # While there are threads: until the work is done, one may start another.
        while threads := self._others_alive():
            left = deadline - time.monotonic()
            if left <= 0:
                if not timeout or begun == self._begun:
                    return
                begun, left = self._begun, timeout
                deadline = time.monotonic() + timeout
            join(threads[0], left)

    def _others_alive(self) -> list[threading.Thread]:
        me = threading.current_thread()
        with self._guard:
            return [thread for thread in self._threads if thread is not me and _may_run(thread)]

    def _expect(self, taker: threading.Thread) -> None:
        """A new thread is started next, and takes the work once it runs. Under the guard."""
        self._coming = taker
        # No thread removes itself, because it would still be running then.
        self._threads = {taker, *filter(_may_run, self._threads)}

    def _does_not_come(self, taker: threading.Thread | None) -> None:
        """The thread could not be started, or it is not known whether it was."""
        with self._guard:
            if taker is not None and self._coming is taker:
                self._coming = None
                if taker.ident is None:
                    self._threads.discard(taker)

    def _take(self) -> None:
        """Does the work, until there is none, or another thread has taken over."""
        me = threading.current_thread()
        with self._guard:
            if self._coming is me or self._taker is None:
                # From here on, the one before takes no more.
                self._taker, self._busy_since = me, None
            if self._coming is me:
                self._coming = None
        while (work := self._next(me)) is not None:
            run_logged(work)
            del work

    def _next(self, me: threading.Thread) -> Callable[[], object] | None:
        with self._guard:
            if self._taker is not me:
                return None
            self._busy_since = None
            self._changed.wait_for(lambda: self._work or not self._lingers_for, self._lingers_for)
            if not self._work:
                self._taker = None
                return None
            self._busy_since = self._monotonic()
            work = self._work.popleft()
            self._begun += 1
            self._supervise()
            return work


@atexit.register
def _finish() -> None:
    for queue in list(_at_exit):
        # In a forked child the threads are the parent's.
        if queue._process == os.getpid():
            queue.join(_EXITS_AFTER)


def nothing() -> None:
    """Work that only wakes, or starts, a thread."""


def run_logged(work: Callable[[], object]) -> None:
    """Runs `work`, and logs what it raises."""
    try:
        work()
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything, and other work follows it
        logger.exception("a callback of a call failed")


def _may_run(thread: threading.Thread) -> bool:
    """Whether a thread runs, or is being started."""
    return thread.ident is None or thread.is_alive()
