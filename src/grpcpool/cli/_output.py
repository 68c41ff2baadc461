"""Prints results that contain text from a server: nothing in it acts on the terminal, and JSON stays exact."""

from __future__ import annotations

import json

from rich.console import Console
from rich.text import Text

from .._values.plain_text import plain


def new_console() -> Console:
    """Returns a console on standard output that prints text as it is, except for rich's markup."""
    # Rich would replace what looks like the name of an emoji.
    return Console(highlight=False, emoji=False)


def shown(text: str) -> Text:
    """Returns text from outside so that rich prints it in one line, and as it is: what looks like markup is none."""
    return Text(plain(text))


def print_json(console: Console, value: object) -> None:
    """Prints a value as JSON in ASCII, without control characters. Parsed, its texts are unchanged."""
    # `json` escapes all control characters except DEL.
    text = json.dumps(value, indent=2).replace("\x7f", "\\u007f")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
