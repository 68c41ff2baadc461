"""The factories of pools that are sent to other processes, under marks that are sent along.

Most picklers send a function as its code, and each time that this arrives it becomes another function. By its mark it
is known to be the same, so that all tasks of a process share one pool.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import MethodType
from typing import Any, Final

from .fork import watch_for_fork

Factory = Callable[[], Any]


class SentFactories:
    """Those that this process has sent or received, as long as something uses them."""

    def __init__(self) -> None:
        """There are none."""
        self._lock = threading.RLock()
        self._known: weakref.WeakValueDictionary[str, Factory] = weakref.WeakValueDictionary()
        watch_for_fork(self)

    def _after_fork_in_child(self) -> object:
        """In a forked child: the marks stay as they are."""
        old, self._lock = self._lock, threading.RLock()
        return old

    def mark_of(self, factory: Factory) -> str:
        """The mark under which to send it: the same each time."""
        with self._lock:
            for mark, known in self._known.items():
                # Methods are new objects each time.
                if known is factory or (isinstance(factory, MethodType) and known == factory):
                    return mark
            return self._note(os.urandom(16).hex(), factory)

    def received(self, mark: str, factory: Factory) -> Factory:
        """The factory of this process that has the mark: `factory`, which has arrived with it, if there is none yet."""
        with self._lock:
            known = self._known.get(mark)
            if known is None:
                self._note(mark, factory)
            return factory if known is None else known

    def _note(self, mark: str, factory: Factory) -> str:
        with suppress(TypeError):
            # Some objects cannot be referred to weakly.
            self._known[mark] = factory
        return mark


FACTORIES: Final = SentFactories()
"""Those of this process."""
