"""Channel options that keep gRPC from giving two channels one connection.

gRPC shares a connection between channels whose target and arguments are equal. Any argument of one's own tells them
apart; gRPC ignores names that it does not know.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

_OPTION = "grpcpool.connection"

_numbers = itertools.count(1)


def isolated(options: Iterable[tuple[str, Any]] = ()) -> tuple[tuple[str, Any], ...]:
    """Channel options that give one channel a connection of its own. Call it anew for each channel.

    Besides keeping channels of a pool apart, the unique argument frees a new channel from the reconnect backoff of
    one that failed, and, as it holds the process id, a forked child from its parent.

    Args:
        options: Further options, passed on.

    Returns:
        The options, for `grpc.insecure_channel` and its sisters.
    """
    return (*options, (_OPTION, f"{os.getpid()}-{next(_numbers)}"))
