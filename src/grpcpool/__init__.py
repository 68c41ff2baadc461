"""The connection pool that gRPC in Python never had: a drop-in channel over several real connections."""

from __future__ import annotations

from ._config import Mode, PoolConfig
from ._errors import (
    LeaseReleasedError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    PoolForkedError,
    PoolOpenError,
    PoolTimeoutError,
    WrongEventLoopError,
)
from ._listener import Listener
from ._stats import ChannelStats, PoolStats

__all__ = [
    "ChannelStats",
    "LeaseReleasedError",
    "Listener",
    "Mode",
    "PoolClosedError",
    "PoolConfig",
    "PoolError",
    "PoolExhaustedError",
    "PoolForkedError",
    "PoolOpenError",
    "PoolStats",
    "PoolTimeoutError",
    "WrongEventLoopError",
]
