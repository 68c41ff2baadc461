"""Tracebacks for the log. The text of each exception is one line: it may quote a server, see `plain_text`."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator
from traceback import TracebackException

from .._values.plain_text import plain

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


class PlainTracebacks(logging.Filter):
    """Formats the traceback of each record, in place of the handlers' formatters. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Sets the record's ``exc_text``, which formatters use if it is there."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not record.exc_text:
            try:
                record.exc_text = plain_traceback(error)
            except Exception:  # noqa: BLE001 -- a foreign exception may do anything, and logging must go on
                record.exc_text = type(error).__name__
        return True


def plain_traceback(error: BaseException) -> str:
    """Returns the traceback of an exception, its causes included, with the text of each in one line."""
    return "".join(_chain(TracebackException.from_exception(error))).rstrip("\n")


def _chain(last: TracebackException) -> Iterator[str]:
    """Yields the lines of an exception after those of what caused it. A loop: a chain may be long."""
    parts: list[str] = []
    each: TracebackException | None = last
    while each is not None:
        parts.append("".join(_lines(each)))
        if each.__cause__ is not None:
            each = each.__cause__
            parts.append(_CAUSE)
        elif each.__context__ is not None and not each.__suppress_context__:
            each = each.__context__
            parts.append(_CONTEXT)
        else:
            each = None
    yield from reversed(parts)


def _lines(one: TracebackException) -> Iterator[str]:
    if one.stack:
        yield "Traceback (most recent call last):\n"
        yield from one.stack.format()
    first, *rest = one.format_exception_only()
    yield f"{plain(first.rstrip())}\n"
    # Notes, line by line.
    yield from (f"  {plain(text.rstrip())}\n" for text in rest)
    for number, part in enumerate(one.exceptions or (), 1):
        yield f"  +- {number}\n"
        yield textwrap.indent("".join(_chain(part)), "  | ", lambda _: True)
