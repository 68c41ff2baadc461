"""The ways to call that are compared, each a channel."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Final

import grpc

import grpcpool

from .._tls import Tls

BARE, NATIVE, POOL = "bare", "native", "pool"
WAYS: Final = {
    BARE: "one grpc.Channel",
    NATIVE: "gRPC's own connection scaling",
    POOL: "grpcpool",
}
"""What each is."""

_SCALING_SINCE = (1, 84)
# What gRPC itself allows.
_SCALING_MOST = 10

Options = tuple[tuple[str, Any], ...]


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
        if not has_scaling():
            return None
        scaling = {"connectionScaling": {"maxConnectionsPerSubchannel": min(_SCALING_MOST, self.config.max_size)}}
        return lambda: self.channel((("grpc.service_config", json.dumps(scaling)),))


def has_scaling() -> bool:
    """Whether this gRPC has connection scaling."""
    return tuple(int(part) for part in grpc.__version__.split(".")[:2]) >= _SCALING_SINCE
