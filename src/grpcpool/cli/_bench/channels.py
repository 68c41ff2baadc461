"""Creates the channels that the benchmark compares: plain, with gRPC's connection scaling, and a pool."""

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
"""The ways to call, and what each is."""

# gRPC's own maximum.
_MAX_SCALING = 10

Options = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """The server to call, and the options of the channels to it."""

    target: str
    tls: Tls
    config: grpcpool.PoolConfig

    def channel(self, more: Options = ()) -> grpc.Channel:
        """Creates a plain gRPC channel with a connection of its own."""
        options = grpcpool.isolated((*self.tls.options(), *more))
        credentials = self.tls.credentials()
        if credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, credentials, options)

    def pool(self) -> grpcpool.ChannelPool:
        """Creates a pool."""
        options, credentials = self.tls.options(), self.tls.credentials()
        if credentials is None:
            return grpcpool.insecure_channel(self.target, options, config=self.config, name="bench")
        return grpcpool.secure_channel(self.target, credentials, options, config=self.config, name="bench")

    def way(self, name: str) -> Callable[[], grpc.Channel] | None:
        """Returns a function that creates the channel for one of `WAYS`; `None` if this grpcio has no such way."""
        if name == POOL:
            return self.pool
        if name == BARE:
            return self.channel
        scaling = scaling_options(min(_MAX_SCALING, self.config.max_size))
        return None if scaling is None else lambda: self.channel(scaling)
