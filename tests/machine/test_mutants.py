"""The model notices slips: each mutant of the machine is caught on fixed walks, the machine itself is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.model import Code, walk
from machine.mutants import MUTANTS, Mutant, loaded, patched

WALKS = 150
STEPS = 100


def caught_at(code: Code) -> int | None:
    """The first walk on which something is wrong; `None` if nothing is on any."""
    for seed in range(WALKS):
        try:
            walk(seed, STEPS, code)
        except Exception:  # noqa: BLE001 -- a mutant may fail in any way; to fail is to be caught
            return seed
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    """The model notices this slip."""
    with loaded(mutant, tmp_path) as code:
        assert caught_at(code) is not None, f"not caught: {mutant.name}, though {mutant.why}"


def test_the_machine_is_not_caught(tmp_path: Path) -> None:
    """A copy without a slip passes the same walks, so that what catches the mutants is their slip."""
    with loaded(None, tmp_path) as code:
        for seed in range(WALKS):
            walk(seed, STEPS, code)


def test_a_mutant_of_text_that_is_gone_is_refused() -> None:
    """A mutant whose text does not occur exactly once is an error, not a copy without a slip."""
    with pytest.raises(ValueError, match="occurs 0 times in slot"):
        patched(Mutant("none", "slot", "no such text", "", ""))
