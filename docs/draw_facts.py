"""Draws what the pool depends on in gRPC, from the table in the code, into ``reference/grpc-facts.md``.

``python docs/draw_facts.py`` updates the page between its markers; with ``--check`` it writes nothing and fails
when the page is not what it would write.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Final, get_args

from grpcpool._grpc.fact import Fact, Kind
from grpcpool._grpc.facts import FACTS

PAGE = pathlib.Path(__file__).parent / "reference" / "grpc-facts.md"
BEGIN = "<!-- begin: drawn by docs/draw_facts.py, do not edit -->"
END = "<!-- end -->"

SECTIONS: Final = {
    "private name": (
        "Private names that the pool reads",
        """\
Each is looked up with a guard. If one is missing, the logger `grpcpool` warns of it once in a process, with the text
under *without it*; where nothing is lost, it may not.""",
    ),
    "offered name": (
        "Private names that the pool has",
        "gRPC, or its clients, look for these on channels. The pool's channels and leases have them.",
    ),
    "code": (
        "Code of gRPC's that is run with changes",
        "The pool runs the code object of the installed release as a function of its own, see decision 0023.",
    ),
    "message": (
        "Texts that are parsed",
        "gRPC reports some things in words alone. In other words, the pool knows less: see *without it*.",
    ),
    "release": (
        "Differences between releases",
        "*Since* is the first release for which the statement holds. The pool works either way.",
    ),
}


def table(facts: list[Fact]) -> str:
    """Returns the rows of some facts."""
    rows = []
    for fact in facts:
        test = fact.test.partition("::")[2]
        rows.append(f"| {named(fact)} | {fact.since} | {cell(fact.why)} | {cell(fact.fallback)} | `{test}` |")
    return "\n".join(["| name | since | why | without it | test |", "|---|---|---|---|---|", *rows])


def named(fact: Fact) -> str:
    """Returns its name, as code unless it is a sentence."""
    return cell(fact.name) if fact.kind == "release" else f"`{fact.name}`"


def cell(text: str) -> str:
    """Returns a text as it can stand in a table."""
    return text.replace("|", "\\|")


def sections() -> str:
    """Returns a section for each kind of fact."""
    parts = []
    # A kind without a section raises KeyError: better no page than one with a gap.
    for kind in get_args(Kind):
        title, text = SECTIONS[kind]
        parts.append(f"## {title}\n\n{text}\n\n{table([fact for fact in FACTS if fact.kind == kind])}")
    return "\n\n".join(parts)


def drawn(page: str) -> str:
    """Returns the page with new content between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{sections()}\n\n{END}{after}"


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description="Draws what the pool depends on in gRPC into reference/grpc-facts.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the page is stale")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        sys.stderr.write(f"{PAGE} must have each of its markers once: {BEGIN} and {END}\n")
        return 1
    wanted = drawn(page)
    if page == wanted:
        return 0
    if check:
        sys.stderr.write(f"{PAGE} is stale: run python docs/draw_facts.py\n")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
