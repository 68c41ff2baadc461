"""Creates the channels that the benchmark compares: plain, with gRPC's connection scaling, and a pool."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

import grpcpool

from ..._demo.limit import scaling_options
from .._tls import Tls

BARE, NATIVE, POOL = "bare", "native", "pool"
WAYS: Final = {
    BARE: "one gRPC channel",
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

    def channel(self, more: Options = (), *, aio: bool = False) -> Any:
        """Creates a plain channel with a connection of its own, of `grpc` or of `grpc.aio`."""
        options = grpcpool.isolated((*self.tls.options(), *more))
        credentials = self.tls.credentials()
        module: Any = grpc.aio if aio else grpc
        if credentials is None:
            return module.insecure_channel(self.target, options)
        return module.secure_channel(self.target, credentials, options)

    def pool(self, *, aio: bool = False) -> Any:
        """Creates a pool, of `grpcpool` or of `grpcpool.aio`."""
        options, credentials = self.tls.options(), self.tls.credentials()
        module: Any = grpcpool.aio if aio else grpcpool
        if credentials is None:
            return module.insecure_channel(self.target, options, config=self.config, name="bench")
        return module.secure_channel(self.target, credentials, options, config=self.config, name="bench")

    def way(self, name: str, *, aio: bool = False) -> Callable[[], Any] | None:
        """Returns a function that creates the channel for one of `WAYS`; `None` if this grpcio has no such way."""
        if name == POOL:
            return functools.partial(self.pool, aio=aio)
        if name == BARE:
            return functools.partial(self.channel, aio=aio)
        scaling = scaling_options(min(_MAX_SCALING, self.config.max_size))
        return None if scaling is None else functools.partial(self.channel, scaling, aio=aio)
