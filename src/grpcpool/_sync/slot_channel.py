"""A slot's channel, with what the driver keeps beside it: its connectivity and its multicallables."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import grpc

from .._announcer import logger
from .connectivity import Connectivity, connectivity_of, wait_until_ready
from .rpc_errors import CallNotStartedError

# Who makes serializers on the spot makes a new method at each call; such are not kept without end.
_MOST_METHODS = 1024


class Method:
    """A method as a stub asks for it. Equal ones are one object, so that looking it up costs no comparison."""

    __slots__ = ("arguments", "kind")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Of `kind`, the name of the maker; `arguments` are the maker's."""
        self.kind = kind
        self.arguments = arguments

    def with_request_serialized(self, request: Any) -> Method:
        """The method for a call that begins later: whatever the caller does to `request` meanwhile does not show.

        Raises:
            grpc.RpcError: The serializer raises; in gRPC's words.
        """
        name, serializer, *rest = self.arguments
        if serializer is None or not self.kind.startswith("unary_"):
            return self
        try:
            serialized = serializer(request)
        except Exception as error:
            text = "Exception serializing request!"
            raise CallNotStartedError(grpc.StatusCode.INTERNAL, text, error) from error

        def serialize(message: Any) -> Any:
            # Interceptors see the message, and may send another.
            return serialized if message is request else serializer(message)

        return Method(self.kind, (name, serialize, *rest))


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


class SlotChannel:
    """One `grpc.Channel` in service of a pool."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Takes over `channel`, which nobody else uses."""
        self.channel = channel
        # Until then the connection is taken to be up without a look.
        self.trusted_until = -math.inf
        self._connectivity: Connectivity | None = None
        # To build a multicallable costs as much as a tenth of a call.
        self._multicallables: dict[Method, Any] = {}

    def connect(self, timeout: float, given_up: Callable[[], bool]) -> None:
        """Has the channel connect, and waits until it is ready; raises as `wait_until_ready`."""
        self._connectivity = connectivity_of(self.channel)
        wait_until_ready(self._connectivity, timeout, given_up)

    def state(self) -> grpc.ChannelConnectivity:
        """The state of the connection, as far as gRPC has noticed."""
        return grpc.ChannelConnectivity.IDLE if self._connectivity is None else self._connectivity.state()

    def is_up(self) -> bool:
        """Looks at the connection; one that is not up is made to connect."""
        return self._connectivity is not None and self._connectivity.look() is grpc.ChannelConnectivity.READY

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

    def close(self) -> None:
        """Closes the channel; calls on it are cancelled. Never raises."""
        if self._connectivity is not None:
            _try(self._connectivity.close)
        _try(self.channel.close)


def _try(close: Callable[[], None]) -> None:
    try:
        close()
    except Exception:  # noqa: BLE001 -- foreign code may raise anything
        logger.exception("a channel failed to close")


def _takes_registered(make: Callable[..., Any]) -> bool:
    """Whether this maker knows ``_registered_method``: gRPC's do since 1.63, those of other makes may not."""
    try:
        return "_registered_method" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False
