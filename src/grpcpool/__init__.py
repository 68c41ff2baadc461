"""The connection pool that gRPC in Python never had: a drop-in channel over several real connections."""

from __future__ import annotations

# Before any other import, which may take a moment.
from . import _early_interrupt  # noqa: F401

# isort: split
import importlib
from typing import TYPE_CHECKING, Any

from ._grpc.options import isolated
from ._sync import factories as _factories
from ._sync.lease import Lease
from ._sync.pool import ChannelPool
from ._values.advice import Advice, Verdict, advise
from ._values.config import Mode, PoolConfig
from ._values.errors import (
    LeaseReleasedError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    PoolForkedError,
    PoolOpenError,
    PoolTimeoutError,
    WrongEventLoopError,
)
from ._values.listener import Listener
from ._values.stats import ChannelStats, PoolStats

if TYPE_CHECKING:
    # The alias makes the name public for type checkers.
    from . import aio as aio
    from ._patching.patch import Patched, patched
    from ._patching.report import PatchReport
    from ._sync.factories import insecure_channel, secure_channel
    from ._sync.shared import shared_channel

__all__ = [
    "Advice",
    "ChannelPool",
    "ChannelStats",
    "Lease",
    "LeaseReleasedError",
    "Listener",
    "Mode",
    "PatchReport",
    "Patched",
    "PoolClosedError",
    "PoolConfig",
    "PoolError",
    "PoolExhaustedError",
    "PoolForkedError",
    "PoolOpenError",
    "PoolStats",
    "PoolTimeoutError",
    "Verdict",
    "WrongEventLoopError",
    "advise",
    "insecure_channel",
    "isolated",
    "patched",
    "secure_channel",
    "shared_channel",
]


_ELSEWHERE = {
    "PatchReport": "._patching.report",
    "Patched": "._patching.patch",
    "__version__": "._values.version",
    "patched": "._patching.patch",
    "shared_channel": "._sync.shared",
}


def __getattr__(name: str) -> Any:
    """Imports at first use what most programs do not need; notes what the two constructors may be about to replace."""
    if name == "aio":
        return importlib.import_module(".aio", __name__)
    if name in _ELSEWHERE:
        found = globals()[name] = getattr(importlib.import_module(_ELSEWHERE[name], __name__), name)
        return found
    found = _factories.looked_up(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    """The names that are there, and those that are looked up."""
    return sorted({*globals(), *__all__})
