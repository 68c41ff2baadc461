"""A slot's channel, with the multicallables that it has made; and the methods that a pool has been asked for."""

from __future__ import annotations

import abc
import contextvars
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol

import grpc

# Who makes serializers on the spot makes a new method at each call; such are not kept without end.
_MOST_METHODS = 1024


class Note(Protocol):
    """What takes note of the request that a call sends."""

    sent: tuple[Any, Any] | None
    """The message and what it was serialized to; `None` until then."""


SENDING: contextvars.ContextVar[Note | None] = contextvars.ContextVar("grpcpool_sending", default=None)
"""Who takes note, while a call is being started."""


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
        """Whether a call may be begun again. A request iterator that has been read from cannot be read again."""
        return self.kind.startswith("unary_")

    @property
    def noting(self) -> Method:
        """The method for a call that may be begun again: its serializer has `SENDING` take note."""
        if self._noting is None:
            name, serializer, *rest = self.arguments
            if serializer is None or not self.may_repeat:
                return self
            self._noting = Method(self.kind, (name, functools.partial(_serialize_and_note, serializer), *rest))
        return self._noting

    def with_request_serialized(self, request: Any) -> Method:
        """The method for a call that begins later: whatever the caller does to `request` meanwhile does not show.

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
    """The methods that a pool has been asked for."""

    def __init__(self) -> None:
        """Knows none yet."""
        self._known: dict[tuple[Any, ...], Method] = {}

    def get(self, kind: str, arguments: tuple[Any, ...]) -> Method:
        """The method; the same object for equal arguments."""
        if len(self._known) >= _MOST_METHODS:
            self._known.clear()
        try:
            return self._known.setdefault((kind, arguments), Method(kind, arguments))
        except TypeError:
            # A serializer that cannot be hashed.
            return Method(kind, arguments)


class SlotChannel(abc.ABC):
    """One channel in service of a pool."""

    def __init__(self, channel: Any) -> None:
        """Takes over `channel`, which nobody else uses."""
        self.channel = channel
        # Until then the connection is taken to be up without a look.
        self.trusted_until = -math.inf
        # To build a multicallable costs as much as a tenth of a call.
        self._multicallables: dict[Method, Any] = {}

    @abc.abstractmethod
    def state(self) -> grpc.ChannelConnectivity:
        """The state of the connection, as far as gRPC has noticed."""

    @abc.abstractmethod
    def is_up(self, *, connect: bool) -> bool:
        """Looks at the connection; `connect` has one that is not up connect."""

    def multicallable(self, method: Method) -> Any:
        """The channel's own multicallable for `method`."""
        made = self._multicallables.get(method)
        if made is None:
            # Two threads may both make one; they are equal, and one is kept.
            made = self.make(method)
            if len(self._multicallables) >= _MOST_METHODS:
                self._multicallables.clear()
            self._multicallables[method] = made
        return made

    def make(self, method: Method) -> Any:
        """A multicallable of the channel for `method`, which is not kept."""
        make: Callable[..., Any] = getattr(self.channel, method.kind)
        *arguments, registered = method.arguments
        if registered and _takes_registered(make):
            arguments.append(registered)
        return make(*arguments)


def _takes_registered(make: Callable[..., Any]) -> bool:
    """Whether this maker knows ``_registered_method``: gRPC's do since 1.63, those of other makes may not."""
    try:
        return "_registered_method" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False
