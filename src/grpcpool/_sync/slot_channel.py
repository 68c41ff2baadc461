"""A slot's `grpc.Channel`, and how threads connect, watch and close it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.broken_channels import serve_until_closed
from .._grpc.connectivity import Connectivity, connectivity_of, wait_until_ready
from .._grpc.lean_blocking_multicallables import make_lean
from .._grpc.registered_methods import guard_registration
from .._grpc.unbroken_locks import secure_channel_lock
from .._shared.announcer import logger
from .._shared.slot_channel import SlotChannel

if TYPE_CHECKING:
    from .._shared.methods import Method


class SyncSlotChannel(SlotChannel):
    """One `grpc.Channel` in service of a pool."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Takes over `channel`, which nothing else uses."""
        super().__init__(channel)
        secure_channel_lock(channel)
        self._may_register = guard_registration(channel)
        self._connectivity: Connectivity | None = None

    def make(self, method: Method) -> Any:
        """A multicallable of the channel for `method`, which is not kept."""
        multicallable = super().make(method)
        if self.is_plain:
            make_lean(multicallable)
        return multicallable

    def connect(self, timeout: float, given_up: Callable[[], bool]) -> None:
        """Connects the channel, and waits until it is ready; raises as `wait_until_ready`."""
        self._connectivity = connectivity_of(self.channel)
        wait_until_ready(self._connectivity, timeout, given_up, request=self.probe_request)
        self.has_connected = True

    def state(self) -> grpc.ChannelConnectivity:
        """The state of the connection, as far as gRPC has noticed."""
        return grpc.ChannelConnectivity.IDLE if self._connectivity is None else self._connectivity.state()

    def is_up(self, *, connect: bool) -> bool:
        """Checks the connection; with `connect`, one that is not up connects."""
        if self._connectivity is None:
            return False
        return self._connectivity.look(connect=connect) is grpc.ChannelConnectivity.READY

    def close(self) -> None:
        """Closes the channel; calls on it are cancelled. Never raises."""
        if self._connectivity is not None:
            _try(self._connectivity.close)
        if self.broken and _try(partial(serve_until_closed, self.channel)) is False:
            # It stays open until the process ends.
            return
        _try(self.channel.close)


def _try(close: Callable[[], object]) -> object:
    try:
        return close()
    except Exception:  # noqa: BLE001 -- foreign code may raise anything
        logger.exception("a channel failed to close")
        return None
