"""Which release of gRPC this is, and what follows from it: no other module compares releases."""

from __future__ import annotations

import re
from typing import Final

import grpc

_OLDEST = (1, 60)


def release_of(version: str) -> tuple[int, int]:
    """Major and minor number; those of the oldest supported release if the version does not begin with two numbers.

    What the pool does for an old release works on a new one, too, and costs a little more.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else _OLDEST


GRPC_RELEASE: Final = release_of(grpc.__version__)
"""Major and minor number."""

NOTICES_LOSSES: Final = GRPC_RELEASE >= (1, 80)
"""Whether gRPC notices by itself that an unused connection was lost.

Before, it does so only during a wait for a change, which takes some 2 ms however short the wait (measured, 1.60 to
1.85).
"""

REFUSES_METADATA: Final = GRPC_RELEASE < (1, 81)
"""Whether threads cannot begin a call with metadata that gRPC cannot send; later such a call fails with `INTERNAL`."""

SCALES_CONNECTIONS: Final = GRPC_RELEASE >= (1, 84)
"""Whether a channel can open further connections by itself (`connectionScaling` in its service config)."""
