"""The machine in a simulated network: see `simulation.py`."""

from __future__ import annotations

import pytest

from machine.simulation import simulate

# Here only so many that each run of the tests has some; ``nox -s simulate`` lives through thousands.
_SEEDS, _BATCH = 120, 20


@pytest.mark.parametrize("first", range(0, _SEEDS, _BATCH))
def test_simulated_lives(first: int) -> None:
    """Whatever servers and callers do, the invariants hold, and nobody waits past his deadline, or beside room."""
    for seed in range(first, first + _BATCH):
        simulate(seed)
