"""Fixtures for the tests of the asyncio pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.loops import KINDS, loops_of


@pytest.fixture(params=KINDS)
def each_loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test in each kind of loop; the value names the kind."""
    with loops_of(request.param):
        yield request.param
