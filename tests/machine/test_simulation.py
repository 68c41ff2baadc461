"""The machine in a simulated network: see `simulation.py`."""

from __future__ import annotations

import pytest

from machine.simulation import simulate

# Only a few seeds here, so that every test run covers some; ``nox -s simulate`` runs thousands.
_SEEDS, _BATCH = 120, 20


@pytest.mark.parametrize("first", range(0, _SEEDS, _BATCH))
def test_simulated_lives(first: int) -> None:
    """Whatever servers and callers do, the invariants hold, and no waiter waits past its deadline or beside room."""
    for seed in range(first, first + _BATCH):
        simulate(seed)
