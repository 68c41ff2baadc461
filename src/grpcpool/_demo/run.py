"""Runs the parts of the demonstration, one after the other."""

from __future__ import annotations

from typing import TextIO

from .calls import show_calls
from .leases import show_leases
from .screen import Screen

PARTS = (show_leases, show_calls)


def run_demo(out: TextIO) -> int:
    """Shows every part on `out`; returns the exit code: 0 if all went as it should."""
    screen = Screen(out)
    wrong: list[str] = []
    for part in PARTS:
        try:
            wrong += part(screen)
        finally:
            screen.end_live()
    for text in wrong:
        screen.write(f"wrong: {text}")
    return 1 if wrong else 0
