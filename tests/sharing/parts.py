"""What pools of the tests are made of, where other processes find it by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import grpc
import grpc.aio

import grpcpool

LISTENER = grpcpool.Listener()


def credentials() -> grpc.ChannelCredentials:
    """New ones for each connection."""
    return grpc.local_channel_credentials()


def channel() -> grpc.Channel:
    """A factory."""
    return grpc.insecure_channel("orders:1")


class Vault:
    """Where credentials may be kept."""

    @classmethod
    def credentials(cls) -> grpc.ChannelCredentials:
        """Equal each time it is looked up, and never the same object."""
        return grpc.local_channel_credentials()


@dataclasses.dataclass
class Unhashable:
    """A callable that cannot be a key: it is compared by its fields."""

    what: str = ""

    def __call__(self, *_: Any) -> Any:
        """Nothing of use."""


UNHASHABLE: Any = Unhashable()


def prime(channel: Any) -> None:
    """Does nothing."""


def addresses() -> list[str]:
    """One address."""
    return ["127.0.0.1:1"]


class Token(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Changes the request."""
        return await continuation(client_call_details, b"echo:" + request)


TOKEN = Token()
