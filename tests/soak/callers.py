"""What callers have in common, whether they are threads or tasks."""

from __future__ import annotations

import time
import weakref
from typing import Any, Final

from soak.book import Book, Entry
from soak.wishes import OK, Wish
from support.servers import CHAT, COLLECT

METHODS: Final = {"collect": COLLECT, "chat": CHAT}
# Requests that go on until their call is over.
MANY: Final = 100_000

OVER_LEASE: Final = {"name": "over a lease", "means": OK, "on_lease": True, "sent_once": True}
CLOSED_UNDER: Final = {"name": "in a pool that is closed", "means": OK | {"CANCELLED"}, "on_lease": True}


def expected(count: int) -> list[bytes]:
    """The numbers that a caller sends, or the server answers."""
    return [str(i).encode() for i in range(count)]


class BaseCaller:
    """Makes calls, one after the other. A subclass has a method for each kind of wish and each manner."""

    def __init__(self, name: str, pool: Any, book: Book) -> None:
        """Calls over this pool."""
        self._name = name
        self._pool = pool
        self._book = book
        self._granted_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    def _call(self, wish: Wish, **how: Any) -> Entry:
        return self._book.call(self._name, wish, **how)

    def _how(self, wish: Wish) -> dict[str, Any]:
        return {"timeout": wish.timeout, "wait_for_ready": wish.waits}

    def _granted(self, lease: Any) -> Any:
        """Notes when the lease was granted, and returns it."""
        self._granted_at[lease] = time.monotonic()
        return lease

    def _over(self, lease: Any) -> dict[str, Any]:
        """What is known of each call over the lease."""
        return {**OVER_LEASE, "chosen": self._granted_at[lease]}

    def _streams(self, wish: Wish) -> int | None:
        return None if wish.size % 3 == 0 else min(wish.size, self._pool.config.max_streams // 2)
