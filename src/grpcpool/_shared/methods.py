"""The methods that a pool has been asked for, and what is sent again when a call is repeated."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, Protocol

# A serializer created on the spot makes a new method at each call; these are not kept without end.
MOST_METHODS = 1024


class Note(Protocol):
    """Takes note of the request that a call sends."""

    sent: tuple[Any, Any] | None
    """The message and what it was serialized to; `None` until then."""


SENDING: contextvars.ContextVar[Note | None] = contextvars.ContextVar("grpcpool_sending", default=None)
"""What takes note while a call is being started."""


class Method:
    """A method as a stub asks for it. Equal ones are one object, so that looking it up costs no comparison."""

    __slots__ = ("_noting", "arguments", "kind")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Of `kind`, the name of the maker; `arguments` are the maker's."""
        self.kind = kind
        self.arguments = arguments
        self._noting: Method | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether a call may be sent again. A request iterator that has been read from cannot be read again."""
        return self.kind.startswith("unary_")

    @property
    def noting(self) -> Method:
        """The method for a call that may be sent again: its serializer makes `SENDING` take note."""
        if self._noting is None:
            name, serializer, *rest = self.arguments
            if serializer is None or not self.may_repeat:
                return self
            self._noting = Method(self.kind, (name, functools.partial(_serialize_and_note, serializer), *rest))
        return self._noting

    def with_request_serialized(self, request: Any) -> Method:
        """The method for a call that starts later: changes that the caller makes to `request` meanwhile do not show.

        Raises:
            Exception: What the serializer raises.
        """
        serializer = self.arguments[1]
        if serializer is None or not self.may_repeat:
            return self
        return self.with_sent(request, serializer(request))

    def with_sent(self, request: Any, serialized: Any) -> Method:
        """The method for a call that sends what `request` was serialized to."""
        name, serializer, *rest = self.arguments

        def serialize(message: Any) -> Any:
            # Interceptors see the message, and may send another.
            return serialized if message is request else serializer(message)

        return Method(self.kind, (name, serialize, *rest))


def _serialize_and_note(serializer: Callable[[Any], Any], message: Any) -> Any:
    serialized = serializer(message)
    note = SENDING.get()
    if note is not None:
        note.sent = (message, serialized)
    return serialized


class Methods:
    """The methods that stubs of a pool use."""

    def __init__(self) -> None:
        """Contains none yet."""
        self._known: dict[tuple[Any, ...], Method] = {}

    def get(self, kind: str, arguments: tuple[Any, ...]) -> Method:
        """The method; the same object for equal arguments."""
        if len(self._known) >= MOST_METHODS:
            self._known.clear()
        try:
            return self._known.setdefault((kind, arguments), Method(kind, arguments))
        except TypeError:
            # A serializer that cannot be hashed.
            return Method(kind, arguments)
