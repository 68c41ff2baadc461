"""The lock of a pool, which every call takes twice.

Entering a `threading.Lock` costs most of a `with` block: it parses its keyword arguments even if it gets none. A
`queue.SimpleQueue` parses none then, and takes and returns an item in one go of C. One that holds a single token is a
lock, at half the cost: the thread with the token holds the lock, and one that finds none waits for it as it waits for
a lock, signal handlers included.
"""

from __future__ import annotations

import queue
import types
from typing import Any, Protocol


class Lock(Protocol):
    """What is used of a lock."""

    def __enter__(self) -> object:
        """Waits until nobody holds the lock, and holds it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Releases the lock."""

    def locked(self) -> bool:
        """Whether a thread holds the lock."""


def token_lock() -> Lock:
    """Creates a lock that nobody holds. It can only be used with `with`, and a thread can hold it once."""
    tokens: queue.SimpleQueue[object] = queue.SimpleQueue()
    tokens.put(None)

    class TokenLock:
        # Found on the class, and not bound to an object: functions of C are not. So no Python code runs between the
        # token and the block, in which a signal handler could raise. What is returned is what `__exit__` got: of
        # three arguments, `put` keeps the first one, and does nothing with the others.
        __enter__ = tokens.get
        __exit__: Any = tokens.put
        locked = tokens.empty

    return TokenLock()
