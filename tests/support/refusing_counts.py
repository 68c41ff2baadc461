"""What the refusing server counts, as its script and its tests see it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Count:
    """What became of streams: of one connection, or of all together (`most`: the most on any one).

    Attributes:
        begun: All that began.
        refused: Those refused.
        completed: Those that the server ended.
        cancelled: Those that the client ended, or whose connection was lost.
        open: Those that run.
        most: The most that ran at once.
    """

    begun: int = 0
    refused: int = 0
    completed: int = 0
    cancelled: int = 0
    open: int = 0
    most: int = 0
