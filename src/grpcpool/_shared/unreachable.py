"""How opening a connection reports that its channel does not connect, as opposed to having no usable channel."""

from __future__ import annotations

from .slot_channel import SlotChannel


class UnreachableError(Exception):
    """The channel does not connect. It is not closed: calls may be made on it, as on a channel without a pool."""

    def __init__(self, channel: SlotChannel, reason: BaseException) -> None:
        """Of `channel`; `reason` is gRPC's."""
        super().__init__(str(reason))
        self.channel = channel
        self.reason = reason
