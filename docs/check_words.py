"""Finds old-fashioned wording in documents, docstrings, comments and messages, and prints what to write instead.

``python docs/check_words.py`` reads the whole project, ``python docs/check_words.py PATH ...`` these files and folders.
Run it from the root of the checkout. It exits with 1 if it finds anything. It finds frequent phrases only: a clean run
does not prove that the text is clear.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from collections.abc import Iterator

PATHS = (
    *("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md", "changelog.d", "docs"),
    *("src", "tests", "bench", "examples", "typing_tests", "hatch_build.py", "noxfile.py", "pyproject.toml", ".ci"),
    *(".github", ".readthedocs.yaml", "CITATION.cff"),
)
# Generated files and data.
EXCLUDED_FOLDERS = {"_build", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
EXCLUDED_SUFFIXES = {".svg", ".csv", ".png", ".pyc"}
# This file lists the phrases.
EXCLUDED_NAMES = {"check_words.py"}

# What a space in a phrase matches: also a line break, with quotes and comment signs around it.
GAP = r"""(?:\x20+|\x20*["']?\x20*\n\x20*(?:\#:?|//|\*|f?["'])?\x20*)"""
# Where a sentence or a cell of a table begins.
START = r"""(?:^\x20*|["'#*|(`:;.!?]\x20*|^\x20*-\x20)"""
WORD = r"[\w`']+"

# Phrases, as regular expressions, with what to write instead. Letters match capitals, too.
PHRASES = {
    # Persons: a pool has callers, users and waiters, and a thread or a call is "it".
    r"\b(?:whoever|whomever|whom)\b": "callers, users, the waiter, the thread that ...",
    rf"{START}who (?!in\b)[a-z]+": "callers, users, the waiter, the thread that ...",
    r"\b(?:and|but|by|for|from|of|than|that|to|while|with) who (?!in\b)[a-z]+": "callers, users, the waiter, it",
    r"\b(?:he|him|his|himself)\b": "it, its, they, the waiter, the caller",
    r"\b(?:somebody|nobody (?:is )?there|there (?:is|are|was|were) nobody)\b": "a caller; the server is unreachable",
    # To tell.
    r"\b(?:am|is|are|was|were|be|been|being) told\b|\btold (?:of|so)\b": "is notified, gets, raises, is reported",
    r"\btells\b|\btell (?:of|nobody|him)\b|\bnot tell\b": "reports, says, shows, emits, raises",
    r"\bhears? of\b|\bheard of\b": "is notified of, learns of, sees",
    # To give.
    rf"\b(?:giv(?:e|es|en|ing)|gave)(?: {WORD}){{0,3}} back\b": "release, releases, released, returns",
    r"\bhand(?:s|ed|ing)? out\b": "grants, returns, deals out",
    r"\bturn(?:s|ed|ing)? away\b": "rejected",
    # To have a thing done.
    r'"""Has ': "the verb itself: Opens, Closes, Starts, Ensures",
    r"\b(?:has|have|had|having) (?:it|them|him) (?:done|made|called|opened|closed)\b": "does, makes, calls",
    r"\b(?:see|sees|saw|seen|seeing) to\b": "ensures, does",
    # What is not.
    r"(?<!there\x20)\b(?:is|are|was|were) no (?!longer|more|less|fewer|closer|better|one\b)[\w`]+": "is not a ...",
    r"\bthat there (?:is|are|was|were) (?:not|none|no)\b": "a nonexistent ...",
    r"\bin vain\b": "without success, timed out, failed",
    r"\bbut for\b": "except",
    r"\bfor want of\b": "because there are no ...",
    r"\bso far as\b": "as far as",
    r"\blest\b": "so that ... not",
    # Joints of sentences.
    r"[,;] for (?:it|they|he|there|that|this|these|those|nothing|none|nobody|gRPC) (?!who\b)[a-z]+": "because",
    r"\bof which\b": "two sentences, or whose",
    r"\ball the same\b": "anyway, still, nevertheless",
    r"\b(?:amid|upon(?! garbage collection!)|in the midst of)\b": "during, while, on",
    # Single words.
    r"\banew\b": "again, new",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\b(?:of|by|for|with|after|the first) so many\b(?! that\b)": "this many, the given number of",
    r"\bof (?:another|other|their own) make\b": "of another implementation",
}
PATTERNS = [
    (re.compile(phrase.replace(" ", GAP), re.IGNORECASE | re.MULTILINE), advice) for phrase, advice in PHRASES.items()
]


def files(paths: list[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Yields the text files at and under `paths`."""
    for path in paths:
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            excluded = file.suffix in EXCLUDED_SUFFIXES or file.name in EXCLUDED_NAMES
            if file.is_file() and not excluded and EXCLUDED_FOLDERS.isdisjoint(file.parts):
                yield file


def findings(file: pathlib.Path) -> list[str]:
    """Returns a line for each phrase in `file`, in their order."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    found = [(match.start(), match.group(), advice) for pattern, advice in PATTERNS for match in pattern.finditer(text)]
    lines = []
    for at, words, advice in sorted(found):
        number = text.count("\n", 0, at) + 1
        lines.append(f"{file}:{number}: {' '.join(words.split())!r}: write {advice}")
    return lines


def main() -> int:
    """Prints what is found."""
    parser = argparse.ArgumentParser(description="Finds old-fashioned wording, and prints what to write instead.")
    parser.add_argument("paths", nargs="*", type=pathlib.Path, metavar="PATH", help="default: the whole project")
    paths = parser.parse_args().paths or [path for path in map(pathlib.Path, PATHS) if path.exists()]
    lines = [line for file in files(paths) for line in findings(file)]
    for line in lines:
        sys.stdout.write(f"{line}\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
