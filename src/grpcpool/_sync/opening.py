"""Opens one connection: factory, connect, prime. Runs on a thread of its own, for all three may block."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import grpc

from .._errors import ConnectError
from .._slot import Slot, SlotState
from .slot_channel import SyncSlotChannel

if TYPE_CHECKING:
    from .core import Core


def open_channel(core: Core, slot: Slot) -> None:
    """Opens the slot's connection and reports to the machine how that ended. Never raises.

    The machine has a deadline of its own for it, so a factory that hangs costs no place for longer. Should the
    attempt come to its end only then, the channel is closed as soon as there is one: whoever gives the slot up
    closes the channel that he finds there, and whoever puts a channel there looks whether the slot was given up.
    """
    channel: SyncSlotChannel | None = None
    try:
        channel = _make(core, slot)
        channel.connect(core.config.connect_timeout, lambda: slot.state is SlotState.CLOSED or core.void)
        prime = core.maker().prime
        if prime is not None:
            _check_primed(prime(channel.channel))
    except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything; the waiters are told
        if channel is not None:
            channel.close()
        core.tell(core.machine.open_failed, slot, error)
    else:
        core.tell(core.machine.opened, slot, channel)


def _check_primed(result: object) -> None:
    if inspect.isawaitable(result):
        raise TypeError("prime returned an awaitable; coroutine functions are for grpcpool.aio")


def _make(core: Core, slot: Slot) -> SyncSlotChannel:
    made = core.maker().factory()
    if not isinstance(made, grpc.Channel):
        raise TypeError(f"the factory returned {type(made).__name__}, not a grpc.Channel")
    channel = SyncSlotChannel(made)
    # Looked at and put there in one go, so that of two who get the same channel, one finds the other.
    with core.lock:
        others = [other.channel.channel for other in core.machine.fleet.slots if other.channel is not None]
        if any(other is made for other in others):
            raise ConnectError("the factory returned a channel that is already in the pool; it must create a new one")
        slot.channel = channel
        given_up = slot.state is SlotState.CLOSED
    if given_up:
        channel.close()
        raise ConnectError("abandoned while the factory created the channel")
    return channel
