"""A slot's channel, with the multicallables that it has made; and the methods that a pool has been asked for."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import grpc

from .._grpc.registered_methods import takes_registered
from .methods import MOST_METHODS, Method


class SlotChannel(abc.ABC):
    """One channel in service of a pool."""

    # Whether methods may be registered with the channel, whenever it may be closed.
    _may_register = True

    def __init__(self, channel: Any) -> None:
        """Takes over `channel`, which nothing else uses."""
        self.channel = channel
        # Set when it is first found connected.
        self.has_connected = False
        # Until then the connection counts as up without a check.
        self.trusted_until = -math.inf
        # The multicallables by their methods: creating one costs a tenth of a call.
        self.made: dict[Method, Any] = {}
        # By kind: whether methods are registered with the channel.
        self._registers: dict[str, bool] = {}

    @abc.abstractmethod
    def state(self) -> grpc.ChannelConnectivity:
        """The state of the connection, as far as gRPC has noticed."""

    @abc.abstractmethod
    def is_up(self, *, connect: bool) -> bool:
        """Checks the connection; `connect` makes one that is not up connect."""

    def multicallable(self, method: Method) -> Any:
        """The channel's own multicallable for `method`."""
        try:
            return self.made[method]
        except KeyError:
            # Two threads may both make one; they are equal, and one is kept.
            made = self.make(method)
            if len(self.made) >= MOST_METHODS:
                self.made.clear()
            self.made[method] = made
            return made

    def make(self, method: Method) -> Any:
        """A multicallable of the channel for `method`, which is not kept."""
        make: Callable[..., Any] = getattr(self.channel, method.kind)
        *arguments, registered = method.arguments
        if registered and self._registers_with(method.kind, make):
            arguments.append(registered)
        return make(*arguments)

    def _registers_with(self, kind: str, make: Callable[..., Any]) -> bool:
        registers = self._registers.get(kind)
        if registers is None:
            registers = self._registers[kind] = self._may_register and takes_registered(make)
        return registers
