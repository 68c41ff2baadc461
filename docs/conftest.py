"""What the tests of the documentation share: servers for the examples."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest
from orders_servers import Addresses, serving

from support.parallel import pytest_cmdline_main  # noqa: F401 -- a hook


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a server without TLS."""
    with serving() as address:
        yield address


@pytest.fixture
def addresses(address: str, tmp_path: pathlib.Path) -> Iterator[Addresses]:
    """The addresses for one page."""
    with contextlib.ExitStack() as stack:
        yield Addresses(address, tmp_path, stack)
