"""A slot's channel, with the multicallables that it has made; and the methods that a pool has been asked for."""

from __future__ import annotations

import abc
import math
import weakref
from collections.abc import Callable
from typing import Any

import grpc

from .._grpc.connectivity import probe_request
from .._grpc.plain_channels import is_plain
from .._grpc.registered_methods import takes_registered
from .._grpc.status import Status, uri_of
from .methods import MOST_METHODS, Method, Sent

# States of a channel in which gRPC fails no call because there is no connection.
_NOT_FAILING = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE})

# By then a call that gRPC cannot send has failed, and the pool knows it.
_FAILS_WITHIN = 0.1


class Made(dict[Method, Any]):
    """The multicallables of a channel by their methods. Each is made once: that costs a tenth of a call."""

    def __init__(self, channel: SlotChannel) -> None:
        """Contains none yet."""
        super().__init__()
        self._channel = weakref.ref(channel)

    def __missing__(self, method: Method) -> Any:
        # Two threads may both make one; they are equal, and one is kept.
        channel = self._channel()
        assert channel is not None  # noqa: S101 -- its user holds it
        made = channel.make(method)
        if len(self) >= MOST_METHODS:
            self.clear()
        self[method] = made
        return made


class SlotChannel(abc.ABC):
    """One channel in service of a pool."""

    # Whether methods may be registered with the channel, whenever it may be closed.
    _may_register = True
    # Whether it does not serve any more, though it is connected.
    broken = False

    def __init__(self, channel: Any) -> None:
        """Takes over `channel`, which nothing else uses."""
        self.channel = channel
        # Whether requests may be passed to it as bytes.
        self.is_plain = is_plain(channel)
        # How gRPC's errors name the only address that it leads to, if that is known; whether gRPC itself may have made
        # attempts at a call before the one that failed, if that is known.
        self._uri: str | None = None
        self._retries: bool | None = None
        # When a check last found it connected, and since when checks have found that it could not connect.
        self._up_at, self._failing_since = -math.inf, math.inf
        # Set when it is first found connected.
        self.has_connected = False
        # Until then the connection counts as up without a check.
        self.trusted_until = -math.inf
        self.made = Made(self)
        # By kind: whether methods are registered with the channel.
        self._registers: dict[str, bool] = {}

    @abc.abstractmethod
    def state(self) -> grpc.ChannelConnectivity:
        """The state of the connection, as far as gRPC has noticed."""

    @abc.abstractmethod
    def is_up(self, *, connect: bool) -> bool:
        """Checks the connection; `connect` makes one that is not up connect."""

    def leads_to(self, address: str | None, *, retries: bool | None) -> None:
        """The channel leads to that one address, if it is known; so is, unless `None`, whether gRPC `retries` calls."""
        self._uri = None if address is None else uri_of(address)
        self._retries = retries

    @property
    def probe_request(self) -> bytes:
        """See the function of this name."""
        return probe_request(retries=self._retries)

    @property
    def shows_unsent(self) -> bool:
        """Whether a call that `could_not_send` applies to has certainly never been sent."""
        return self._uri is not None and not self._retries

    def checked(self, now: float, *, up: bool, failing: bool) -> None:
        """A check has found the channel connected (`up`), or that it could not connect (`failing`)."""
        if up:
            self._up_at, self._failing_since = now, math.inf
        elif failing:
            self._failing_since = min(self._failing_since, now)

    def could_not_send(self, status: Status, began: float, now: float) -> bool:
        """Whether a call that `began` then, and failed, was not sent by the last attempt.

        Then the channel is not connected and tries to be, the words name its own address, and gRPC has made no attempt
        before. Nor has the channel been connected since the call began; and if it could not connect then, the call
        failed at once. Of a factory's channel address and attempts are not known. There a server that relays such an
        error while its connection ends is mistaken for one that was not reached.
        """
        unreached = status.unreached
        if unreached is None or self._retries or self.state() in _NOT_FAILING:
            return False
        if began <= self._up_at or began <= self._failing_since <= now - _FAILS_WITHIN:
            return False
        return self._retries is None or unreached == self._uri

    def sending(self, method: Method, request: Any, sent: Sent | None) -> tuple[Any, Any]:
        """The multicallable for a call that sends what has been serialized, and what it is called with."""
        if sent is None:
            return self.made[method], request
        if self.is_plain and not isinstance(sent[1], Exception):
            return self.made[method.of_bytes], sent[1]
        return self.make(method.with_sent(sent)), request

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
