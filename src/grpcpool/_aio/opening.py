"""Opens one connection: factory, connect, prime. Runs in a task of its own."""

from __future__ import annotations

import inspect

import grpc

from .._machine.slot import Slot
from .._shared.channel_source import wrong_channel
from .._shared.driver import Driver
from .._shared.unreachable import UnreachableError
from .._values.errors import ConnectError
from .slot_channel import AioSlotChannel


async def open_channel(driver: Driver, slot: Slot) -> AioSlotChannel:
    """Opens the slot's connection: creates the channel, connects and primes it.

    Giving up the slot cancels this, and closes the channel that is in the slot by then. The machine has a deadline of
    its own for the opening.

    Raises:
        UnreachableError: The channel does not connect.
        BaseException: Whatever the factory or `prime` raised.
    """
    channel = _make(driver, slot)
    try:
        await channel.connect()
    except Exception as error:
        raise UnreachableError(channel, error) from error
    await prime(driver, channel)
    return channel


async def prime(driver: Driver, channel: AioSlotChannel) -> None:
    """Primes a connection that is up, if the pool does that.

    Raises:
        BaseException: Whatever `prime` raised.
    """
    own = driver.source().prime
    if own is not None:
        primed = own(channel.channel)
        if inspect.isawaitable(primed):
            await primed


def _make(driver: Driver, slot: Slot) -> AioSlotChannel:
    source = driver.source()
    made = source.create(slot.endpoint, slot.address)
    if not isinstance(made, grpc.aio.Channel):
        raise wrong_channel(made, "grpc.aio.Channel")
    if any(other.channel is not None and other.channel.channel is made for other in driver.machine.fleet.slots):
        raise ConnectError("the factory returned a channel that is already in the pool; it must create a new one")
    channel = AioSlotChannel(made)
    channel.leads_to(source.only_address(slot.address), retries=source.retries)
    slot.channel = channel
    return channel
