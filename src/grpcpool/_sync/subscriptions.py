"""The state of a whole pool, for who subscribes to it as to a channel.

The pool is ready if any of its connections is. Nobody is told of the changes of a channel for nothing (gRPC's own
`subscribe` polls), so there is a thread that looks as long as there are subscribers, and none else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import grpc

from .._shared.announcer import logger
from .._shared.driver import Driver

Callback = Callable[[grpc.ChannelConnectivity], None]

# gRPC's own interval.
_LOOKS_EVERY = 0.2

_State = grpc.ChannelConnectivity


class Subscriptions:
    """Tells callbacks the state of a pool, and its changes."""

    def __init__(self, driver: Driver, name: str) -> None:
        """Has no subscribers yet, and no thread."""
        self._driver = driver
        self._name = name
        self._changed = threading.Condition()
        # Each subscriber with the state it was told last.
        self._subscribers: list[tuple[Callback, _State | None]] = []
        self._connect = False
        self._thread: threading.Thread | None = None
        self._runs = False
        # Set without a lock, also by a finalizer; whoever looks next sees it.
        self.over = False

    def subscribe(self, callback: Callback, *, connect: bool) -> None:
        """Tells `callback` the state now and at each change; `connect` has the pool open a connection."""
        with self._changed:
            self._subscribers.append((callback, None))
            self._connect = self._connect or connect
            self._look()

    def unsubscribe(self, callback: Callback) -> None:
        """Tells `callback` no more; the last one to leave ends the thread."""
        with self._changed:
            for place, (other, _) in enumerate(self._subscribers):
                if other == callback:
                    del self._subscribers[place]
                    break
            self._changed.notify_all()

    def nudge(self) -> None:
        """Something may have changed."""
        if self._subscribers:
            with self._changed:
                self._look()

    def adopt(self, parent: Subscriptions) -> None:
        """In a forked child: takes over who was subscribed. They are told again once the pool is used here."""
        self._subscribers = [(callback, None) for callback, _ in parent._subscribers]
        self._connect = parent._connect

    def _look(self) -> None:
        """Has the thread look; starts one if there is none. Called under the condition."""
        if self._subscribers and not self._runs and not self.over and not sys.is_finalizing():
            self._thread = threading.Thread(target=self._run, name=f"{self._name}-connectivity", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                logger.exception("cannot start a thread for connectivity callbacks")
                self._thread = None
            else:
                self._runs = True
        self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Ends all subscriptions, as the close of a channel does, and waits for the thread."""
        self.over = True
        with self._changed:
            self._subscribers.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            state = self._driver.connectivity()
            with self._changed:
                if self.over or not self._subscribers:
                    self._connect = False
                    self._runs = False
                    return
                news = [callback for callback, told in self._subscribers if told is not state]
                self._subscribers = [(callback, state) for callback, _ in self._subscribers]
                connect = self._connect
            for callback in news:
                _tell(callback, state)
            if connect and state is not _State.READY:
                self._driver.tell(self._driver.machine.connect)
            # To connect has changed it already, and nobody else would say so before it has been done.
            unchanged = self._driver.connectivity() is state
            with self._changed:
                if unchanged and all(told is state for _, told in self._subscribers) and self._subscribers:
                    self._changed.wait(_LOOKS_EVERY)


def _tell(callback: Callback, state: _State) -> None:
    try:
        callback(state)
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything
        logger.exception("a connectivity callback failed")
