"""Locks of gRPC's that no signal handler can leave locked.

gRPC's channels and calls have locks of the type `threading.Condition`, whose methods are Python code. A signal handler
that raises as such a method begins or ends keeps the lock from being released. The interrupted thread does not notice,
because the lock is reentrant. All others wait for it forever: those that check the connection, and the thread that
serves all futures and streams of the channel.

Here these locks are given another class, whose methods are those of the lock within: functions of C, in which no
handler runs. Where that is not possible, `interrupted_calls.py` repairs what it can.
"""

from __future__ import annotations

import collections
import operator
import threading
from collections.abc import Callable
from typing import Any

import grpc

from .client_modules import CLIENT_MODULES, compiled_channel, kept_by_state
from .missing import warn_of_missing


class _Condition(threading.Condition):
    """A condition that is entered and left by functions of C alone; so are those that look them up."""

    __slots__ = ()

    __enter__ = property(operator.attrgetter("_lock.__enter__"))
    __exit__ = property(operator.attrgetter("_lock.__exit__"))


class _CallLock(_Condition):
    """One that is made in half the time: Python's copies more of its lock's methods into the object."""

    __slots__ = ("__enter__", "__exit__", "_acquire_restore", "_is_owned", "_lock", "_release_save", "_waiters")

    acquire: Any = property(operator.attrgetter("_lock.acquire"))
    release: Any = property(operator.attrgetter("_lock.release"))

    def __init__(self) -> None:
        lock: Any = threading.RLock()
        self._lock = lock
        self._waiters: collections.deque[Any] = collections.deque()
        # Those that streams use.
        self.__enter__, self.__exit__ = lock.__enter__, lock.__exit__
        self._release_save, self._acquire_restore = lock._release_save, lock._acquire_restore
        self._is_owned = lock._is_owned


_KNOWN = {name for name in vars(_CallLock) if not name.startswith("__")}


def call_lock_like(condition: threading.Condition) -> Callable[[], threading.Condition]:
    """What makes a lock for a call, with all attributes of `condition`, that no signal handler can leave locked."""
    return _CallLock if vars(condition).keys() == _KNOWN else _Condition


def secure_channel_lock(channel: grpc.Channel) -> None:
    """No signal handler leaves the lock of `channel` locked from here on, if it is one of gRPC's own."""
    compiled = compiled_channel(channel)
    if compiled is not None and not any(map(_secure, kept_by_state(compiled))):
        warn_of_missing("_ChannelState.condition")


def secure_call_lock(call: Any) -> None:
    """No signal handler leaves the lock of `call` locked from here on, if it is one of gRPC's own."""
    lock = getattr(getattr(call, "_state", None), "condition", None)
    if type(lock) is threading.Condition and type(call).__module__ in CLIENT_MODULES:
        _secure(lock)


def _secure(lock: object) -> bool:
    """Gives a condition its other class; returns whether it has it."""
    if type(lock) is threading.Condition:
        lock.__class__ = _Condition
    return isinstance(lock, _Condition)
