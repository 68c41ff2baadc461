"""Text that a hostile server sends, and whether text is safe for a person to read."""

from __future__ import annotations

import unicodedata

HOSTILE = (
    "no\r\n2026-01-01 CRITICAL root: password changed\x1b[2J\x1b]0;title\x07\x7f\x9b1m\x85\u2028\u2029"
    "\u202egnp.exe\u202c\u2066x\u2069\u200f\0[red]:skull:<b>&é日本"
)
"""Line breaks, terminal codes, changes of the writing direction, and markup, with letters that are harmless."""

_DIRECTION = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def unsafe_in(text: str) -> list[str]:
    """Returns the characters of `text` that act on a terminal or start a new line, as Unicode classifies them."""
    return [
        char
        for char in text
        if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(char) in _DIRECTION
    ]


def is_safe(text: str, *, lines: bool = False) -> bool:
    """Whether `text` has only safe characters; `lines` allows line feeds."""
    return not unsafe_in(text.replace("\n", "") if lines else text)
