"""Opens one connection: factory, connect, prime. Runs on a thread of its own, because all three may block."""

from __future__ import annotations

import inspect

import grpc

from .._machine.slot import Slot
from .._shared.channel_source import wrong_channel, wrong_world
from .._shared.driver import Driver
from .._shared.unreachable import UnreachableError
from .._values.errors import ConnectError
from .._values.slot_states import SlotState
from .slot_channel import SyncSlotChannel


def open_channel(driver: Driver, slot: Slot) -> SyncSlotChannel:
    """Opens the slot's connection: creates the channel, connects and primes it.

    The machine has a deadline of its own for this, so a factory that hangs does not block the slot for longer. An
    attempt that ends after the slot was given up closes its channel: the thread that gives up the slot closes the
    channel that it finds there, and the thread that puts a channel there checks whether the slot was given up.

    Raises:
        UnreachableError: The channel does not connect; it is left open.
        BaseException: Whatever the factory or `prime` raised; the channel is closed.
    """
    channel = _make(driver, slot)
    try:
        channel.connect(driver.config.connect_timeout, lambda: slot.state is not SlotState.OPENING or driver.void)
    except Exception as error:
        raise UnreachableError(channel, error) from error
    try:
        prime(driver, channel)
    except BaseException:
        channel.close()
        raise
    return channel


def prime(driver: Driver, channel: SyncSlotChannel) -> None:
    """Primes a connection that is up, if the pool does that.

    Raises:
        BaseException: Whatever `prime` raised.
    """
    own = driver.source().prime
    if own is not None and inspect.isawaitable(own(channel.channel)):
        raise TypeError("prime returned an awaitable; coroutine functions are for grpcpool.aio")


def _make(driver: Driver, slot: Slot) -> SyncSlotChannel:
    try:
        source = driver.source()
        made = source.create(slot.endpoint, slot.address)
    except RuntimeError as error:
        if (mistake := wrong_world(error)) is not None:
            raise mistake from error
        raise
    if not isinstance(made, grpc.Channel):
        raise wrong_channel(made, "grpc.Channel")
    channel = SyncSlotChannel(made)
    channel.leads_to(source.only_address(slot.address), retries=source.retries)
    # Checked and stored under one lock, so that of two threads that get the same channel, one finds the other.
    with driver.lock:
        others = [other.channel.channel for other in driver.machine.fleet.slots if other.channel is not None]
        if any(other is made for other in others):
            raise ConnectError("the factory returned a channel that is already in the pool; it must create a new one")
        slot.channel = channel
        given_up = slot.state is SlotState.CLOSED
    if given_up:
        channel.close()
        raise ConnectError("abandoned while the factory created the channel")
    return channel
