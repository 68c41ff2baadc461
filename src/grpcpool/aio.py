"""The asyncio twins: the same names as in `grpcpool`, for `grpc.aio`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._aio import factories as _factories
from ._aio.lease import Lease
from ._aio.pool import ChannelPool
from ._aio.shared import shared_channel

if TYPE_CHECKING:
    from typing import Any

    from ._aio.factories import insecure_channel, secure_channel

__all__ = ["ChannelPool", "Lease", "insecure_channel", "secure_channel", "shared_channel"]


# Type checkers know the names from above; with this function, they would accept any other.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Notes what the two constructors may be about to replace."""
        found = _factories.looked_up(name)
        if found is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return found


def __dir__() -> list[str]:
    """The names that are there, and those that are looked up; without those that only serve here."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
