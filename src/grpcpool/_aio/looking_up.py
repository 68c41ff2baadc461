"""Looks up the addresses of a pool's target, without blocking the loop."""

from __future__ import annotations

import asyncio
import inspect
import socket

from .._shared.channel_source import ChannelSource
from .._shared.destination import addresses_in, checked


async def look_up_now(source: ChannelSource, endpoint: int, loop: asyncio.AbstractEventLoop) -> list[str]:
    """The addresses of one of the pool's targets, at least one.

    Raises:
        BaseException: Whatever the user's callable, or the resolver, raised.
    """
    if (known := source.known(endpoint)) is not None:
        return known
    if source.addresses is None:
        destination = source.destinations[endpoint]
        return checked(
            addresses_in(await loop.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM))
        )
    if inspect.iscoroutinefunction(source.addresses):
        return checked(await source.addresses())
    # It may block.
    found = await loop.run_in_executor(None, source.addresses)
    return checked(await found if inspect.isawaitable(found) else found)
