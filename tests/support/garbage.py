"""Lets tests collect garbage often, at little cost.

What is alive between two tests is set aside, every so many tests: then a collection does not look through it. Some of
it becomes garbage later, so that every so many tests everything is looked through again.
"""

from __future__ import annotations

import gc

_SET_ASIDE_EVERY = 25
_LOOK_THROUGH_EVERY = 1000


class _Aside:
    """What is set aside."""

    def __init__(self) -> None:
        self._tests = 0
        self._all_is_back = False

    def before_a_test(self) -> None:
        """Sets aside what is alive between two tests: neither garbage nor what a test has made for itself."""
        self._tests += 1
        if self._tests % _LOOK_THROUGH_EVERY == 0:
            gc.unfreeze()
        if self._tests % _SET_ASIDE_EVERY == 0 or self._all_is_back:
            self.now()

    def now(self) -> None:
        """Sets aside what is alive."""
        gc.collect()
        gc.freeze()
        self._all_is_back = False

    def look_through_all(self) -> None:
        """Collects all garbage there is. It is slow, and collections stay so until before the next test."""
        gc.unfreeze()
        gc.collect()
        self._all_is_back = True


ASIDE = _Aside()
"""Of this process."""
