"""Subscriptions to the state of a whole pool, as to that of a channel.

The pool is ready if any of its connections is. Channels do not report their changes (gRPC's own `subscribe` polls), so
a thread checks them. It exists only while there are subscribers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import grpc

from .._shared.announcer import logger
from .._shared.driver import Driver
from .._shared.thread_start import NoThreadError
from .one_thread import OneThread

Callback = Callable[[grpc.ChannelConnectivity], None]

# gRPC's own interval.
_CHECKS_EVERY = 0.2

_State = grpc.ChannelConnectivity


class Subscriptions:
    """Calls callbacks with the state of a pool, and at its changes."""

    def __init__(self, driver: Driver, name: str) -> None:
        """Starts without subscribers, and without a thread."""
        self._driver = driver
        # Taken directly: if a signal handler raises while a condition is entered, its lock stays locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread = OneThread(f"{name}-connectivity", self._lock)
        # Each subscriber with the state it was last called with.
        self.subscribers: list[tuple[Callback, _State | None]] = []
        self._connect = False
        # Set without a lock, also by a finalizer; the next check sees it.
        self.over = False
        # The same of those whose subscriptions are over.
        self._left: deque[Callback] = deque()

    def subscribe(self, callback: Callback, *, connect: bool) -> None:
        """Calls `callback` with the state now and at each change; with `connect`, the pool opens a connection."""
        with self._lock:
            self.subscribers.append((callback, None))
            self._connect = self._connect or connect
        self._wake()

    def unsubscribe(self, callback: Callback) -> None:
        """Ends the subscription of `callback`. The thread ends with the last one."""
        with self._lock:
            for index, (other, _) in enumerate(self.subscribers):
                if other == callback:
                    del self.subscribers[index]
                    break
            self._changed.notify_all()

    def leave(self, callback: Callback) -> None:
        """Ends the subscription of `callback` at the next check. Safe in finalizers."""
        self._left.append(callback)

    def nudge(self) -> None:
        """The state may have changed."""
        if self.subscribers:
            self._wake()

    def adopt(self, parent: Subscriptions) -> None:
        """In a forked child: takes over the subscribers, which are called again once the pool is used here."""
        self.subscribers = [(callback, None) for callback, _ in parent.subscribers]
        self._left.extend(parent._left)
        self._connect = parent._connect

    def _wake(self) -> None:
        """Wakes the thread, or starts one."""
        with self._lock:
            self._changed.notify_all()
        try:
            self._thread.start(self._run, lambda: bool(self.subscribers) and not self.over)
        except NoThreadError:
            logger.exception("cannot start a thread for connectivity callbacks")

    def close(self, timeout: float) -> None:
        """Ends all subscriptions, as the close of a channel does, and waits for the thread."""
        self.over = True
        with self._lock:
            self.subscribers.clear()
            self._changed.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            while self._left:
                self.unsubscribe(self._left.popleft())
            state = self._driver.connectivity()
            with self._lock:
                if self.over or not self.subscribers:
                    self._connect = False
                    self._thread.ends()
                    return
                if state is _State.READY:
                    # As with gRPC, it connects once.
                    self._connect = False
                news = [callback for callback, last in self.subscribers if last is not state]
                self.subscribers = [(callback, state) for callback, _ in self.subscribers]
                connect = self._connect
            for callback in news:
                _notify(callback, state)
            if connect and state is not _State.READY:
                self._driver.tell(self._driver.machine.connect)
            # `connect` may have changed the state, which nothing else reports before the connection is open.
            unchanged = self._driver.connectivity() is state
            with self._lock:
                if unchanged and all(last is state for _, last in self.subscribers) and self.subscribers:
                    self._changed.wait(_CHECKS_EVERY)


def _notify(callback: Callback, state: _State) -> None:
    try:
        callback(state)
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything
        logger.exception("a connectivity callback failed")
