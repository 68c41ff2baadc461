"""Calls that are over at once and that no server sees: they bring gRPC's thread of a channel one event."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_NO_FLAGS = 0
_NO_METHOD = b"/"
_LONG_AGO = 0.0


def begin_empty_call(compiled: Any, handle: Callable[[Any], object]) -> None:
    """Begins one that is to receive a message, which does not come.

    Args:
        compiled: What gRPC has in C below a channel.
        handle: Called with the event on gRPC's thread of the channel. A call ends for that if it returns true.

    Raises:
        ValueError: The channel is closed.
    """
    cygrpc = sys.modules[type(compiled).__module__]
    receive = (cygrpc.ReceiveMessageOperation(_NO_FLAGS),)
    compiled.integrated_call(_NO_FLAGS, _NO_METHOD, None, _LONG_AGO, None, None, ((receive, handle),))
