"""Draws the life of a slot, from the table that the machine runs on, into ``states.md``.

``python docs/draw_states.py`` writes the page anew between its markers; with ``--check`` it writes nothing and fails
when the page is not what it would write.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import pathlib
import sys
from collections import defaultdict

from grpcpool._slot import TRANSITIONS, SlotState

PAGE = pathlib.Path(__file__).with_name("states.md")
BEGIN = "<!-- begin: drawn by docs/draw_states.py, do not edit -->"
END = "<!-- end -->"


def diagram() -> str:
    """Returns the table as a Mermaid state diagram; ways between the same two states share an arrow."""
    events: defaultdict[tuple[SlotState, SlotState], list[str]] = defaultdict(list)
    for (source, event), target in TRANSITIONS.items():
        events[source, target].append(event)
    (first, *_), last = SlotState, SlotState.CLOSED
    arrows = [f"{source} --> {target}: {', '.join(names)}" for (source, target), names in events.items()]
    lines = [f"[*] --> {first}", *arrows, f"{last} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


def meanings() -> str:
    """Returns a table of what is written under each state in the source."""
    (states,) = ast.parse(inspect.getsource(SlotState)).body
    assert isinstance(states, ast.ClassDef)  # noqa: S101 (for mypy)
    texts: dict[str, str] = {}
    for member, below in itertools.pairwise(states.body):
        match member, below:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
            case _:
                pass
    # A state without a text raises KeyError: better no page than one with a gap.
    rows = (f"| `{state}` | {texts[state.name]} |" for state in SlotState)
    return "\n".join(["| state | meaning |", "|---|---|", *rows])


def drawn(page: str) -> str:
    """Returns the page with what is between its markers drawn anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{meanings()}\n\n{END}{after}"


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description="Draws the life of a slot into docs/states.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the page is stale")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        sys.stderr.write(f"{PAGE} must have each of its markers once: {BEGIN} and {END}\n")
        return 1
    if page == drawn(page):
        return 0
    if check:
        sys.stderr.write(f"{PAGE} is stale: run python docs/draw_states.py\n")
        return 1
    PAGE.write_text(drawn(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
