"""Looks up the addresses of a pool's target, on a thread of its own: the resolver and the user's callable may block."""

from __future__ import annotations

import inspect

from .._shared.channel_source import ChannelSource
from .._shared.destination import checked, look_up


def look_up_now(source: ChannelSource, endpoint: int) -> list[str]:
    """The addresses of one of the pool's targets, at least one.

    Raises:
        BaseException: Whatever the user's callable, or the resolver, raised.
    """
    if (known := source.known(endpoint)) is not None:
        return known
    if source.addresses is None:
        destination = source.destinations[endpoint]
        return checked(look_up(destination.host or "", destination.port))
    found = source.addresses()
    if inspect.isawaitable(found):
        if inspect.iscoroutine(found):
            # Otherwise Python warns that it was never awaited.
            found.close()
        raise TypeError("addresses returned an awaitable; coroutine functions are for grpcpool.aio")
    return checked(found)
