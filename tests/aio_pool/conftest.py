"""Fixtures for the tests of the asyncio pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.loops import KINDS, loops_of


@pytest.fixture(params=KINDS)
def each_loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test is run in each kind of loop; says which it is."""
    with loops_of(request.param):
        yield request.param
