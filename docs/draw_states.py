"""Draws the life of a slot, from the table that the machine uses, into ``states.md`` and ``states.svg``.

``python docs/draw_states.py`` writes the drawing, and the part of the page between its markers. With ``--check`` it
writes nothing, and fails if either file is stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import pathlib
import sys
from collections import defaultdict

from grpcpool._machine.slot import TRANSITIONS
from grpcpool._values.slot_states import SlotState

PAGE = pathlib.Path(__file__).with_name("states.md")
BEGIN = "<!-- begin: drawn by docs/draw_states.py, do not edit -->"
END = "<!-- end -->"
DRAWING = PAGE.with_suffix(".svg")

# Where each state is drawn; a state without a position raises KeyError.
PLACES = {
    SlotState.OPENING: (130, 50),
    SlotState.READY: (400, 50),
    SlotState.LOST: (400, 200),
    SlotState.DRAINING: (700, 50),
    SlotState.CLOSED: (130, 500),
}
HALF = 55 + 22j
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 790 550" width="790" height="550"
 font-family="sans-serif" font-size="13" text-anchor="middle">
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8z" fill="#345"/></marker></defs>
<rect width="790" height="550" rx="8" fill="#fff"/>"""


def arrows() -> list[tuple[SlotState, SlotState, str]]:
    """Returns source, target and label of each arrow; transitions between the same two states share one."""
    events: defaultdict[tuple[SlotState, SlotState], list[str]] = defaultdict(list)
    for (source, event), target in TRANSITIONS.items():
        events[source, target].append(event)
    return [(source, target, ", ".join(names)) for (source, target), names in events.items()]


def diagram() -> str:
    """Returns the drawing of the table."""
    states = {state: complex(*PLACES[state]) for state in SlotState}
    (first, *_), last = states, SlotState.CLOSED
    both_ways = {(source, target) for source, target, _ in arrows()}
    lines = [
        arrow(states[source], states[target], label, aside=(target, source) in both_ways)
        for source, target, label in arrows()
    ]
    lines += [box(place, state) for state, place in states.items()]
    lines += [dot(states[first] - 90, "5"), line(states[first] - 85, states[first] - HALF.real)]
    end = states[last] - 90
    lines += [line(states[last] - HALF.real, end + 8), dot(end, "5"), dot(end, "8")]
    return "\n".join([HEAD, *lines, "</svg>", ""])


def box(place: complex, text: str) -> str:
    """Returns the box of a state."""
    corner = place - HALF
    size = f'width="{2 * HALF.real:g}" height="{2 * HALF.imag:g}"'
    frame = f'<rect x="{corner.real:g}" y="{corner.imag:g}" {size} rx="8" fill="#eef3fb" stroke="#345"/>'
    return f'{frame}\n<text x="{place.real:g}" y="{place.imag + 5:g}" font-weight="bold">{text}</text>'


def dot(place: complex, radius: str) -> str:
    """Returns the dot where a life begins or, with a ring around it, ends."""
    fill = "#345" if radius == "5" else "none"
    return f'<circle cx="{place.real:g}" cy="{place.imag:g}" r="{radius}" fill="{fill}" stroke="#345"/>'


def line(start: complex, end: complex) -> str:
    """Returns a line with an arrow head."""
    ends = f'x1="{start.real:.1f}" y1="{start.imag:.1f}" x2="{end.real:.1f}" y2="{end.imag:.1f}"'
    return f'<line {ends} stroke="#345" marker-end="url(#head)"/>'


def arrow(source: complex, target: complex, label: str, *, aside: bool) -> str:
    """Returns an arrow from one box to another, beside the middle if there is also an arrow back."""
    along = (target - source) / abs(target - source)
    side = along * (1j if aside else -1j)
    shift = side * 14 if aside else 0
    start, end = (place + shift + way * reach(way) for place, way in ((source, along), (target, -along)))
    middle = (start + end) / 2 + side * 8
    # The text stands beside a steep line, and is centred above or below a flat one.
    steep = abs(along.imag) > abs(along.real) / 2
    anchor = ("start" if side.real > 0 else "end") if steep else "middle"
    drop = 5 if steep else 5 + 6 * side.imag
    text = f'<text x="{middle.real:.1f}" y="{middle.imag + drop:.1f}" text-anchor="{anchor}">{label}</text>'
    return f"{line(start, end)}\n{text}"


def reach(way: complex) -> float:
    """Returns the distance from the middle of a box to its edge, in this direction."""
    sides = [half / abs(part) for half, part in ((HALF.real, way.real), (HALF.imag, way.imag)) if part]
    return min(sides)


def meanings() -> str:
    """Returns a table of the states with their docstrings."""
    (states,) = ast.parse(inspect.getsource(SlotState)).body
    assert isinstance(states, ast.ClassDef)  # noqa: S101 (for mypy)
    texts: dict[str, str] = {}
    for member, below in itertools.pairwise(states.body):
        match member, below:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
            case _:
                pass
    # A state without a docstring raises KeyError: better no page than one with a gap.
    rows = (f"| `{state}` | {texts[state.name]} |" for state in SlotState)
    return "\n".join(["| state | meaning |", "|---|---|", *rows])


def drawn(page: str) -> str:
    """Returns the page with a new drawing and table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    shown = f"![{described()}]({DRAWING.name})"
    return f"{before}{BEGIN}\n\n{shown}\n\n{meanings()}\n\n{END}{after}"


def described() -> str:
    """Returns the table in words, for readers who cannot see the drawing."""
    return "; ".join(f"{source} to {target}: {label}" for source, target, label in arrows())


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description="Draws the life of a slot into docs/states.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the page is stale")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        sys.stderr.write(f"{PAGE} must have each of its markers once: {BEGIN} and {END}\n")
        return 1
    for path, wanted in ((PAGE, drawn(page)), (DRAWING, diagram())):
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        if check:
            sys.stderr.write(f"{path} is stale: run python docs/draw_states.py\n")
            return 1
        path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
