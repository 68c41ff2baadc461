"""Fixtures for the tests of integrations."""

from __future__ import annotations

import pytest

from support.pools import linger_shortly


@pytest.fixture(autouse=True)
def _pools_linger_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test waits until its shared pools have ended: they would log the end of their server in the next one."""
    linger_shortly(monkeypatch)
