"""The keeper of one connection: opens it (factory, connect, prime), and then tells when it goes down and comes back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from .._announcer import logger
from .._driver import reconnect_delay
from .._errors import ConnectError
from .._slot import Slot, SlotState
from .slot_channel import AioSlotChannel

if TYPE_CHECKING:
    from .core import Core

ChannelFactory = Callable[[], grpc.aio.Channel]


async def keep(core: Core, slot: Slot) -> None:
    """Opens the slot's connection, reports to the machine how that ended, and watches over it as long as it is open.

    Whoever gives the slot up cancels this, and closes the channel that he finds in the slot. The machine has a
    deadline of its own for the opening.
    """
    try:
        channel = _make(core, slot)
        await channel.connect()
        if core.config.prime is not None:
            primed = core.config.prime(channel.channel)
            if inspect.isawaitable(primed):
                await primed
    except (Exception, asyncio.CancelledError) as error:
        # Foreign code may raise anything, also what it raises that was not cancelled itself; the waiters are told.
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        core.leave_keeper(slot)
        core.tell(core.machine.open_failed, slot, error)
        return
    core.tell(core.machine.opened, slot, channel)
    try:
        await _watch(core, slot, channel)
    except Exception:  # noqa: BLE001 -- as above; the connection serves without being watched
        logger.exception("pool %r: the state of channel %d could not be watched", core.name, slot.id)
    core.leave_keeper(slot)


def _is_cancelled() -> bool:
    """Whether it is this very task that somebody wants to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _make(core: Core, slot: Slot) -> AioSlotChannel:
    made = core.factory()
    if not isinstance(made, grpc.aio.Channel):
        raise TypeError(f"the factory returned {type(made).__name__}, not a grpc.aio.Channel")
    if any(other.channel is not None and other.channel.channel is made for other in core.machine.fleet.slots):
        raise ConnectError("the factory returned a channel that is in the pool already; it must make a new one")
    slot.channel = channel = AioSlotChannel(made)
    return channel


async def _watch(core: Core, slot: Slot, channel: AioSlotChannel) -> None:
    """Reports each loss and each recovery, and has a connection that was lost come back."""
    up = True
    state = grpc.ChannelConnectivity.READY
    while slot.state is not SlotState.CLOSED and state is not grpc.ChannelConnectivity.SHUTDOWN:
        await channel.wait_for_change(state)
        state = channel.state()
        if up is not (state is grpc.ChannelConnectivity.READY):
            up = not up
            core.tell(core.machine.recovered if up else core.machine.lost, slot)
        if state is grpc.ChannelConnectivity.IDLE:
            await asyncio.sleep(reconnect_delay(core.machine.fleet.slots.lost))
            state = channel.state(connect=True)
        core.changed()
