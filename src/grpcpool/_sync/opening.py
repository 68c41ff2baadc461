"""Opens one connection: factory, connect, prime. Runs on a thread of its own, for all three may block."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import grpc

from .._machine.slot import Slot
from .._values.errors import ConnectError
from .._values.slot_states import SlotState
from .slot_channel import SyncSlotChannel

if TYPE_CHECKING:
    from .driver import SyncDriver


def open_channel(driver: SyncDriver, slot: Slot) -> None:
    """Opens the slot's connection and reports to the machine how that ended. Never raises.

    The machine has a deadline of its own for it, so a factory that hangs costs no place for longer. Should the
    attempt come to its end only then, the channel is closed as soon as there is one: whoever gives the slot up
    closes the channel that he finds there, and whoever puts a channel there looks whether the slot was given up.
    """
    channel: SyncSlotChannel | None = None
    try:
        channel = _make(driver, slot)
        channel.connect(driver.config.connect_timeout, lambda: slot.state is SlotState.CLOSED or driver.void)
        prime = driver.source().prime
        if prime is not None:
            _check_primed(prime(channel.channel))
    except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything; the waiters are told
        if channel is not None:
            channel.close()
        driver.tell(driver.machine.open_failed, slot, error)
    else:
        driver.tell(driver.machine.opened, slot, channel)


def _check_primed(result: object) -> None:
    if inspect.isawaitable(result):
        raise TypeError("prime returned an awaitable; coroutine functions are for grpcpool.aio")


def _make(driver: SyncDriver, slot: Slot) -> SyncSlotChannel:
    made = driver.source().factory()
    if not isinstance(made, grpc.Channel):
        raise TypeError(f"the factory returned {type(made).__name__}, not a grpc.Channel")
    channel = SyncSlotChannel(made)
    # Looked at and put there in one go, so that of two who get the same channel, one finds the other.
    with driver.lock:
        others = [other.channel.channel for other in driver.machine.fleet.slots if other.channel is not None]
        if any(other is made for other in others):
            raise ConnectError("the factory returned a channel that is in the pool already; it must make a new one")
        slot.channel = channel
        given_up = slot.state is SlotState.CLOSED
    if given_up:
        channel.close()
        raise ConnectError("given up while the factory made the channel")
    return channel
