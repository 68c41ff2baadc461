"""Metadata from the command line. Its values may be secrets: nothing prints them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from .._errors import UsageError

Metadata = tuple[tuple[str, str | bytes], ...]

_NAME: Final = re.compile(r"[0-9a-z_.-]+", re.ASCII)
_VALUE: Final = re.compile(r"[ -~]*", re.ASCII)
_BINARY: Final = "-bin"
_RESERVED: Final = "grpc-"


def parse_metadata(texts: Sequence[str]) -> Metadata:
    """Parses metadata, each a ``name: value``; the value of a name that ends in ``-bin`` is base64.

    Raises:
        UsageError: One of them is not valid. The message contains no value.
    """
    return tuple(_parse(number, text) for number, text in enumerate(texts, 1))


def without_values(arguments: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Returns a command line with the metadata's values replaced by three dots."""
    return [_without_value(argument, texts) for argument in arguments]


def _parse(number: int, text: str) -> tuple[str, str | bytes]:
    name, colon, value = text.partition(":")
    # HTTP/2 has lower-case names only.
    name, value = name.strip().lower(), value.strip()
    if not colon or not _NAME.fullmatch(name):
        # What looks like a name may be a value.
        raise UsageError(f"--metadata: number {number} is not valid: expected 'name: value'")
    if name.startswith(_RESERVED):
        raise UsageError(f"--metadata {name}: names that begin with {_RESERVED} are gRPC's own")
    if name.endswith(_BINARY):
        return name, _decoded(name, value)
    if not _VALUE.fullmatch(value):
        raise UsageError(f"--metadata {name}: the value is not printable ASCII: use a name that ends in {_BINARY}")
    return name, value


def _decoded(name: str, value: str) -> bytes:
    try:
        # Servers and tools often leave out the padding.
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"--metadata {name}: the value is not valid base64") from error


def _without_value(argument: str, texts: Sequence[str]) -> str:
    # The option may be joined to its value, as in `-Hname: value`.
    for text in sorted(texts, key=len, reverse=True):
        if text and argument.endswith(text):
            name, colon, _ = text.partition(":")
            return argument.removesuffix(text) + (f"{name}: ..." if colon else "...")
    return argument
