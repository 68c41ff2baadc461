"""Opens one connection: factory, connect, prime. Runs in a task of its own."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING

import grpc

from .._errors import ConnectError
from .._slot import Slot
from .slot_channel import AioSlotChannel

if TYPE_CHECKING:
    from .core import Core


async def open_channel(core: Core, slot: Slot) -> None:
    """Opens the slot's connection, and reports to the machine how that ended.

    Whoever gives the slot up cancels this, and closes the channel that he finds in the slot. The machine has a
    deadline of its own for the opening.
    """
    try:
        channel = _make(core, slot)
        await channel.connect()
        prime = core.maker().prime
        if prime is not None:
            primed = prime(channel.channel)
            if inspect.isawaitable(primed):
                await primed
    except GeneratorExit:
        # This is collected with its loop.
        raise
    except BaseException as error:
        # Foreign code may raise anything, also what it raises that was not cancelled itself; the waiters are told.
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        # The error is remembered; a call in its frames would keep the connection of its channel open.
        traceback.clear_frames(error.__traceback__)
        core.leave_opening(slot)
        core.tell(core.machine.open_failed, slot, error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            # The program is to end.
            raise
    else:
        core.leave_opening(slot)
        core.tell(core.machine.opened, slot, channel)


def _is_cancelled() -> bool:
    """Whether it is this very task that somebody wants to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _make(core: Core, slot: Slot) -> AioSlotChannel:
    made = core.maker().factory()
    if not isinstance(made, grpc.aio.Channel):
        raise TypeError(f"the factory returned {type(made).__name__}, not a grpc.aio.Channel")
    if any(other.channel is not None and other.channel.channel is made for other in core.machine.fleet.slots):
        raise ConnectError("the factory returned a channel that is already in the pool; it must create a new one")
    slot.channel = channel = AioSlotChannel(made)
    return channel
