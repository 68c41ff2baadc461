"""What creates the channels of a pool: the user's factory, and prime."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from .._grpc.client_modules import AIO_CHANNELS
from .._machine.addresses import Addressing
from .constructors import run_factory
from .destination import LEFT_TO_GRPC, AddressSource, addressing_of
from .targets import TargetFactory, named_after

_OTHER_WORLD = {
    "grpc.Channel": "this factory returns a grpc.aio.Channel: use grpcpool.aio.ChannelPool",
    "grpc.aio.Channel": "this factory returns a grpc.Channel: use grpcpool.ChannelPool",
}


def wrong_channel(made: object, wanted: str) -> TypeError:
    """Returns the error for what a factory returned instead of a channel of the class `wanted`, one of gRPC's two."""
    if isinstance(made, grpc.Channel | grpc.aio.Channel):
        return TypeError(_OTHER_WORLD[wanted])
    return TypeError(f"the factory returned {type(made).__name__}, not a {wanted}")


def wrong_world(error: RuntimeError) -> TypeError | None:
    """Returns the error for a factory that raised `error` because gRPC's channel for asyncio needs a loop, or `None`.

    gRPC creates such a channel only where there is a loop, so that the factory returns none.
    """
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return TypeError(_OTHER_WORLD["grpc.Channel"]) if AIO_CHANNELS in modules else None


class ChannelSource:
    """The two callables. Only the pool holds them; its background work refers to them weakly.

    They are often methods of the object that owns the pool. If a thread of the pool held them, they would keep both
    alive for ever, and a pool dropped without `close()` would never be closed.
    """

    __slots__ = ("__weakref__", "addresses", "destinations", "factory", "prime", "target", "targets")

    def __init__(self, factory: Callable[[], Any], prime: Callable[[Any], object] | None) -> None:
        """See `ChannelPool` and `PoolConfig`."""
        self.factory = factory
        self.prime = prime
        # What the channels connect to; and how its addresses are found, if gRPC does not do that.
        self.target: str | None = None
        self.targets: Sequence[str] = ()
        self.destinations = [LEFT_TO_GRPC]
        self.addresses: AddressSource | None = None
        if isinstance(factory, TargetFactory):
            self.target, self.targets = named_after(factory.targets), factory.targets
            self.destinations, self.addresses = factory.destinations, factory.addresses

    @property
    def addressing(self) -> Addressing:
        """How the addresses are known to which channels lead."""
        return addressing_of(self.destinations)

    @property
    def retries(self) -> bool | None:
        """Whether gRPC itself may make several attempts at a call; `None` if that is not known, as of a factory."""
        return self.factory.retries if isinstance(self.factory, TargetFactory) else None

    def only_address(self, address: str | None) -> str | None:
        """The IP address, if it is known that channels created for `address` connect to that, and to nothing else."""
        if address is None or not isinstance(self.factory, TargetFactory):
            return None
        return self.factory.only_address(address)

    def create(self, endpoint: int, address: str | None) -> Any:
        """A new channel to one of the targets, and to one address of that, if it is given."""
        if isinstance(self.factory, TargetFactory):
            return self.factory(address, endpoint)
        return run_factory(self.factory)

    def known(self, endpoint: int) -> list[str] | None:
        """The addresses of a target that need no look-up; `None` if it needs one."""
        destination = self.destinations[endpoint]
        if destination.addressing.addresses:
            return [*destination.addressing.addresses]
        return [self.targets[endpoint]] if destination.is_left_to_grpc and self.addresses is None else None
