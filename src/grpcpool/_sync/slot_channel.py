"""A slot's channel, with what the driver keeps beside it: its connectivity and its multicallables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from .._announcer import logger
from .connectivity import connectivity_of


class SlotChannel:
    """One `grpc.Channel` in service of a pool."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Takes over `channel`, which nobody else uses."""
        self.channel = channel
        self.connectivity = connectivity_of(channel)
        self.state = self.connectivity.state
        # By call kind, method and the rest: to build one costs as much as a tenth of a call.
        self._multicallables: dict[tuple[Any, ...], Any] = {}

    def multicallable(self, kind: str, *arguments: Any) -> Any:
        """The channel's own multicallable of that `kind` (the name of the method that makes it)."""
        key = (kind, *arguments)
        made = self._multicallables.get(key)
        if made is None:
            make: Callable[..., Any] = getattr(self.channel, kind)
            # Two threads may both make one; they are equal, and one is kept.
            made = self._multicallables[key] = make(*arguments)
        return made

    def close(self) -> None:
        """Closes the channel; calls on it are cancelled. Never raises."""
        try:
            self.connectivity.close()
            self.channel.close()
        except Exception:  # noqa: BLE001 -- foreign code may raise anything
            logger.exception("a channel failed to close")
