"""The ways to call that are compared, each a channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

import grpcpool

from ..._demo.calls import scaling_options
from .._tls import Tls

BARE, NATIVE, POOL = "bare", "native", "pool"
WAYS: Final = {
    BARE: "one grpc.Channel",
    NATIVE: "gRPC's own connection scaling",
    POOL: "grpcpool",
}
"""What each is."""

# What gRPC itself allows.
_SCALING_MOST = 10

Options = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where to call, and how."""

    target: str
    tls: Tls
    config: grpcpool.PoolConfig

    def channel(self, more: Options = ()) -> grpc.Channel:
        """Makes a channel of gRPC's own, with a connection of its own."""
        options = grpcpool.isolated((*self.tls.options(), *more))
        credentials = self.tls.credentials()
        if credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, credentials, options)

    def pool(self) -> grpcpool.ChannelPool:
        """Makes a pool."""
        options, credentials = self.tls.options(), self.tls.credentials()
        if credentials is None:
            return grpcpool.insecure_channel(self.target, options, config=self.config, name="bench")
        return grpcpool.secure_channel(self.target, credentials, options, config=self.config, name="bench")

    def way(self, name: str) -> Callable[[], grpc.Channel] | None:
        """What makes the channel for one of `WAYS`; `None` if this gRPC has no such way."""
        if name == POOL:
            return self.pool
        if name == BARE:
            return self.channel
        scaling = scaling_options(min(_SCALING_MOST, self.config.max_size))
        return None if scaling is None else lambda: self.channel(scaling)
