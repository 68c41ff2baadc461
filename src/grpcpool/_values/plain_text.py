"""Text from outside, such as a server's error message, for a person to read in a log or on a terminal.

A terminal obeys escape sequences, a line break forges a log line, and a control of the writing direction reorders what
a page shows. Text from a server is escaped wherever a person reads it, and only there: what programs read, such as the
`details()` of a call, stays as gRPC has it.
"""

from __future__ import annotations

import re

# Control characters (C0, DEL and C1), separators of lines and paragraphs, controls of the writing direction, and
# surrogates, which no stream can encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Returns the text in one line that does nothing to a terminal: unsafe characters are escaped, as in ``\x1b``.

    The escapes are Python's. Letters of every language stay. A backslash stays, too, so that text may be escaped twice.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
