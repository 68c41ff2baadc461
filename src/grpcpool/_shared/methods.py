"""The methods that a pool has been asked for, and what is sent again when a call is."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, Protocol

# A serializer created on the spot makes a new method at each call; these are not kept without end.
MOST_METHODS = 1024


Sent = tuple[Any, Any]
"""A request, and what it was serialized to; what the serializer raised, if it did."""


def failed_to_serialize(request: Any, error: Exception) -> Sent:
    """For what the serializer raised: without the frame that called it, by which the call would hold itself."""
    trace = error.__traceback__
    return request, error.with_traceback(None if trace is None else trace.tb_next)


class Note(Protocol):
    """Takes note of the request that a call sends."""

    sent: Sent | None
    """`None` until it is serialized."""


SENDING: contextvars.ContextVar[Note | None] = contextvars.ContextVar("grpcpool_sending", default=None)
"""What takes note while a call is being started."""


class Method:
    """A method as a stub asks for it. Equal ones are one object, so that looking it up costs no comparison."""

    __slots__ = ("_noting", "_of_bytes", "arguments", "kind", "serializer")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Of `kind`, the name of the maker; `arguments` are the maker's."""
        name = arguments[0]
        if not isinstance(name, bytes):
            # Raises what gRPC raises if it is not a name.
            name.encode()
        self.kind = kind
        self.arguments = arguments
        # Of the requests of calls that may be sent again, if they need one.
        self.serializer: Callable[[Any], Any] | None = arguments[1] if len(arguments) > 1 and self.may_resend else None
        self._noting: Method | None = None
        self._of_bytes: Method | None = None

    @property
    def may_resend(self) -> bool:
        """Whether a call may be sent again. A request iterator that has been read from cannot be read again."""
        return self.kind.startswith("unary_")

    @property
    def noting(self) -> Method:
        """The same method, but its serializer makes `SENDING` take note. Of one with a serializer."""
        if self._noting is None:
            self._noting = self._with(functools.partial(_serialize_and_note, self.arguments[1]))
        return self._noting

    @property
    def of_bytes(self) -> Method:
        """The same method, for requests that are serialized already."""
        if self._of_bytes is None:
            self._of_bytes = self._with(None)
        return self._of_bytes

    def serialized(self, request: Any) -> Sent | None:
        """What is sent, now or later: changes that the caller makes to `request` meanwhile do not show.

        Raises:
            Exception: What the serializer raises.
        """
        return None if self.serializer is None else (request, self.serializer(request))

    def with_sent(self, sent: Sent) -> Method:
        """The method for a call that sends what its request was serialized to."""
        request, serialized = sent
        serializer = self.arguments[1]

        def serialize(message: Any) -> Any:
            # Interceptors see the message, and may send another.
            return serialized if message is request else serializer(message)

        # gRPC reports an error in its own way. From then on nothing here holds it: its traceback holds this.
        failures = [serialized]

        def fail(message: Any) -> Any:
            if message is request and failures:
                raise failures.pop()
            return serializer(message)

        return self._with(fail if isinstance(serialized, Exception) else serialize)

    def _with(self, serializer: Callable[[Any], Any] | None) -> Method:
        name, _, *rest = self.arguments
        return Method(self.kind, (name, serializer, *rest))


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
