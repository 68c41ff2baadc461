"""Whether a channel is connected: the only place that knows gRPC's private connectivity calls.

gRPC's public way, `subscribe`, costs a thread and a poll every 0.2 s for each channel. The channel behind
`grpc.Channel` returns its state in a microsecond, and a thread can wait for a change without polling; the names have
been the same since grpcio 1.60. A channel of another implementation has nothing like it, and is watched in the public
way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import grpc

from .._values.errors import ConnectError
from .client_modules import layers_of, learn_module_of
from .looks import look
from .missing import warn_of_missing
from .version import NOTICES_LOSSES

_STATES = {state.value[0]: state for state in grpc.ChannelConnectivity}

# A thread that waits for a change checks at least this often whether the channel is still wanted.
_GLANCE = 0.1

# How long an older gRPC is given to notice that a connection was lost.
_LOOK = 0.002

# As long as what gRPC keeps of a call that it may repeat (`grpc.per_rpc_retry_buffer_size`).
_TOO_LONG_TO_KEEP = bytes(256 * 1024)

TRUSTED_FOR = 0.01 if NOTICES_LOSSES else 0.5
"""Seconds for which a connection that was found up is leased without another check.

A check costs as much as half an acquire. Only a check counts, not that the connection was used meanwhile: a dead
connection fails its calls faster than a live one serves them, and would be used ever more often.
"""


class _Native(Protocol):
    """What is used of gRPC's private channel."""

    def check_connectivity_state(self, try_to_connect: bool, /) -> int: ...

    def watch_connectivity_state(self, last_observed: int, deadline: float, /) -> object: ...


class Connectivity(Protocol):
    """The state of one channel."""

    def state(self, *, connect: bool = False) -> grpc.ChannelConnectivity:
        """The state as it is now; with `connect`, an idle channel connects."""

    def look(self, *, connect: bool) -> grpc.ChannelConnectivity:
        """The state when gRPC has just looked at the connection; with `connect`, an idle channel connects."""

    def wait_for_change(self, state: grpc.ChannelConnectivity, timeout: float) -> None:
        """Waits up to `timeout` seconds for another state than `state`."""

    def failure(self, timeout: float, request: bytes) -> Exception | None:
        """Why the channel does not connect; `None` if it does by now. For `request`, see `probe_request`."""

    def close(self) -> None:
        """Ends what it costs to know the state."""


class NativeConnectivity:
    """Asks gRPC's own channel, privately."""

    def __init__(self, channel: grpc.Channel, native: _Native) -> None:
        """For `channel`, which directly wraps `native`."""
        self._channel = channel
        self._native = native

    def state(self, *, connect: bool = False) -> grpc.ChannelConnectivity:
        """Costs a microsecond. A closed channel is in `SHUTDOWN`."""
        try:
            return _STATES[self._native.check_connectivity_state(connect)]
        except ValueError:
            return grpc.ChannelConnectivity.SHUTDOWN

    def look(self, *, connect: bool) -> grpc.ChannelConnectivity:
        """As `state`; an older gRPC is made to look first."""
        state = self.state(connect=connect)
        if not NOTICES_LOSSES:
            look(lambda: self.wait_for_change(state, _LOOK))
            state = self.state(connect=connect)
        return state

    def wait_for_change(self, state: grpc.ChannelConnectivity, timeout: float) -> None:
        """Waits without holding the interpreter."""
        try:
            self._native.watch_connectivity_state(state.value[0], time.time() + timeout)
        except ValueError:
            return

    def failure(self, timeout: float, request: bytes) -> Exception | None:
        """Gets the reason from a call that fails at once: gRPC shows it nowhere else.

        The call does not wait for ready, so while the channel is down it never leaves the process. If the channel has
        just connected, the server answers that it does not know the method, which is as good.
        """
        probe: Any = self._channel.unary_unary("/grpcpool.Connectivity/Probe")
        try:
            probe(request, timeout=timeout, wait_for_ready=False)
        except grpc.RpcError as error:
            # With any code: a wrong target or service config has its own.
            if self.state() is not grpc.ChannelConnectivity.READY:
                return error
        except ValueError as error:
            return error
        if self.state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            # An interceptor of the channel's own answers in the server's place.
            return ConnectError(f"the channel reports {grpc.ChannelConnectivity.TRANSIENT_FAILURE.name}")
        return None

    def close(self) -> None:
        """Does nothing: it costs nothing to know this."""


class SubscribedConnectivity:
    """Subscribes to a channel of another implementation, in the public way."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Subscribes to `channel`, which makes it connect."""
        self._channel = channel
        self._changed = threading.Condition()
        self._state = grpc.ChannelConnectivity.IDLE
        channel.subscribe(self._on_change, try_to_connect=True)

    def _on_change(self, state: grpc.ChannelConnectivity) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def state(self, *, connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 -- the subscription connects
        """The last state that gRPC reported."""
        return self._state

    def look(self, *, connect: bool) -> grpc.ChannelConnectivity:  # noqa: ARG002 -- the subscription connects
        """The last state that gRPC reported."""
        return self._state

    def wait_for_change(self, state: grpc.ChannelConnectivity, timeout: float) -> None:
        """Waits for a notification."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is not state, timeout)

    def failure(self, timeout: float, request: bytes) -> Exception | None:  # noqa: ARG002 -- there is no call
        """An error that names the state; the reason is unknown."""
        return ConnectError(f"the channel reports {self._state.name}")

    def close(self) -> None:
        """Unsubscribes."""
        self._channel.unsubscribe(self._on_change)


def connectivity_of(channel: grpc.Channel) -> Connectivity:
    """The best way to know the state of `channel`."""
    layers = list(layers_of(channel))
    for outer, inner in pairwise(layers):
        if hasattr(inner, "check_connectivity_state") and hasattr(inner, "watch_connectivity_state"):
            learn_module_of(outer)
            return NativeConnectivity(outer, inner)
    _note_what_is_missing(layers[-1])
    return SubscribedConnectivity(channel)


def _note_what_is_missing(channel: Any) -> None:
    """Warns if `channel`, the innermost, is gRPC's own, or what gRPC's own has within."""
    module = type(channel).__module__
    if module.startswith("grpc._cython"):
        known = hasattr(channel, "check_connectivity_state")
        warn_of_missing("watch_connectivity_state" if known else "check_connectivity_state")
    elif module.startswith("grpc."):
        learn_module_of(channel)
        warn_of_missing("Channel._channel")


def probe_request(*, retries: bool | None) -> bytes:
    """What a call sends that asks a channel why it does not connect.

    gRPC would repeat it, as any call, if it may by the service config (`retries`), so that the reason comes late. It
    does not repeat one whose request it does not keep, because it is too long.
    """
    return _TOO_LONG_TO_KEEP if retries else b""


def wait_until_ready(
    connectivity: Connectivity, timeout: float, given_up: Callable[[], bool], *, request: bytes
) -> None:
    """Makes the channel connect, and waits until it is ready.

    Args:
        connectivity: Of the channel.
        timeout: Seconds within which gRPC says why the channel does not connect.
        given_up: Whether the wait has lost its purpose, as when it has taken too long.
        request: See `probe_request`.

    Raises:
        ConnectError: Nobody waits any longer.
        Exception: gRPC's reason, as soon as it reports a transient failure.
    """
    while (state := connectivity.state(connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.SHUTDOWN or given_up():
            raise ConnectError("closed while it was being opened")
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            failure = connectivity.failure(timeout, request)
            if failure is not None:
                raise failure
            continue
        connectivity.wait_for_change(state, _GLANCE)
