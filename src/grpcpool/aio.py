"""The asyncio twins: the same names as in `grpcpool`, for `grpc.aio`."""

from __future__ import annotations

from ._aio.factories import insecure_channel, secure_channel
from ._aio.lease import Lease
from ._aio.pool import ChannelPool

__all__ = ["ChannelPool", "Lease", "insecure_channel", "secure_channel"]
