"""Whether gRPC or the pool holds a call that waits for ready and whose connection is down.

A slot whose address the pool has chosen leads nowhere else. There gRPC would hold the call until that server is back,
although others are up. So the pool starts it as one that does not wait: if it cannot be sent, it fails at once, and is
sent on another connection, or waits in the queue until one is up. gRPC holds a call with a request iterator, which
cannot be sent again; one on a channel that may lead to several servers; and one at which gRPC may make several
attempts, because the words for the last do not show whether an earlier one was sent. It also holds a call that has
been sent again `max_resends` times: an error text proves nothing, so it is believed only so often.
"""

from __future__ import annotations

import math

import grpc

from .._machine.places import Holder
from .._machine.slot import Slot
from .._values.config import PoolConfig
from .arguments import WAIT_FOR_READY, Arguments
from .driver import Driver
from .methods import Method


def waits_within(driver: Driver, slot: Slot, method: Method, resends: int = 0) -> bool:
    """Whether gRPC holds a call on the slot that waits for ready, if its connection is down.

    Args:
        driver: The driver of its pool.
        slot: Where it has a place.
        method: Its method.
        resends: How often it has been sent again so far.
    """
    return not (slot.channel.shows_unsent and method.may_resend and driver.has_resends_left(resends))


def if_up(driver: Driver, slot: Slot | None, holder: Holder) -> Slot | None:
    """The slot on which a call that waits for ready has a place, unless gRPC knows that its connection is down.

    Then the place is released, and the call waits in the queue: to begin it there would make the channel connect, at
    the same moment as all others that lost the same server.
    """
    if slot is None or slot.channel.state() is grpc.ChannelConnectivity.READY:
        return slot
    driver.tell(driver.machine.unfit, slot, 1, holder, None)
    return None


def as_sent(driver: Driver, arguments: Arguments, slot: Slot, method: Method, resends: int = 0) -> Arguments:
    """The arguments with which gRPC starts the call on the slot; see `waits_within`."""
    if not arguments[WAIT_FOR_READY] or waits_within(driver, slot, method, resends):
        return arguments
    request, timeout, metadata, credentials, _, compression = arguments
    return request, timeout, metadata, credentials, False, compression


def call_deadline(config: PoolConfig, timeout: float | None, now: float, *, wait_for_ready: bool) -> float:
    """The moment until which a call may wait: its own deadline or, if it has none, that of `acquire_timeout`.

    A call that waits for ready, and has no deadline, waits as long as it takes, as on a channel without a pool.
    """
    if timeout is None and not wait_for_ready:
        timeout = config.acquire_timeout
    # In this order `max` treats NaN as past, as gRPC does. Among the deadlines NaN would hide others.
    return math.inf if timeout is None else max(now, now + timeout)
