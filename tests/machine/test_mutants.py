"""The model catches mistakes: every mutant of the machine fails on fixed walks, and the real machine does not."""

from __future__ import annotations

import pytest

from machine import mutants_of_connections, mutants_of_waiters
from machine.mutation import Mutant, loaded, patched
from machine.settings import Code
from machine.walk import walk

MUTANTS = (*mutants_of_waiters.MUTANTS, *mutants_of_connections.MUTANTS)

WALKS = 400
STEPS = 100
# Some mutants fail on a few walks in a hundred only. These walks are taken first: together they catch all mutants that
# there were when they were chosen, and each catches some that those before it do not.
FIRST = (46, 98, 394, 496, 130, 233, 168, 308, 35, 45, 61, 99, 154, 173, 191, 198, 246)
ORDER = (*FIRST, *(seed for seed in range(WALKS) if seed not in FIRST))


def caught_at(code: Code) -> int | None:
    """The first walk that fails; `None` if none of all does."""
    for seed in ORDER:
        try:
            walk(seed, STEPS, code)
        except Exception:  # noqa: BLE001 -- a mutant may fail in any way; to fail is to be caught
            return seed
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    """The model catches this mutant."""
    with loaded(mutant) as code:
        assert caught_at(code) is not None, f"not caught: {mutant.name}, though {mutant.why}"


def test_the_machine_is_not_caught() -> None:
    """A copy without a mutation passes the same walks, so a failing mutant fails because of its mutation."""
    with loaded(None) as code:
        for seed in ORDER:
            walk(seed, STEPS, code)


def test_a_mutant_whose_text_is_missing_is_refused() -> None:
    """A mutant whose text does not occur exactly once raises; it does not become an unchanged copy."""
    with pytest.raises(ValueError, match="occurs 0 times in slot"):
        patched(Mutant("none", "slot", "no such text", "", ""))
