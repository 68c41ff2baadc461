"""The connection pool that gRPC in Python never had: a drop-in channel over several real connections.

To import it costs nearly nothing: each name is loaded when it is first used, and gRPC with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    # The aliases make the names public for type checkers.
    from . import aio as aio
    from . import events as events
    from ._grpc.options import isolated
    from ._patching.patch import Patched, patched
    from ._patching.report import PatchReport
    from ._sync.factories import insecure_channel, secure_channel
    from ._sync.lease import Lease
    from ._sync.pool import ChannelPool
    from ._sync.shared import shared_channel
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
    from ._values.version import __version__ as __version__

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

_MODULES = ("aio", "events")
_HOMES = {
    "._grpc.options": ("isolated",),
    "._patching.patch": ("Patched", "patched"),
    "._patching.report": ("PatchReport",),
    "._sync.lease": ("Lease",),
    "._sync.pool": ("ChannelPool",),
    "._sync.shared": ("shared_channel",),
    "._values.advice": ("Advice", "Verdict", "advise"),
    "._values.config": ("Mode", "PoolConfig"),
    "._values.errors": tuple(name for name in __all__ if name.endswith("Error")),
    "._values.listener": ("Listener",),
    "._values.stats": ("ChannelStats", "PoolStats"),
    "._values.version": ("__version__",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Type checkers know the names from above; with this function, they would accept any other.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads a name at its first use; notes what the two constructors may be about to replace."""
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        if name in _HOME_OF:
            found = globals()[name] = getattr(importlib.import_module(_HOME_OF[name], __name__), name)
            return found
        if name in ("insecure_channel", "secure_channel"):
            return importlib.import_module("._sync.factories", __name__).looked_up(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names that are there, and those that are loaded at their first use; without those that only serve here."""
    return sorted({*globals(), *__all__, *_HOME_OF, *_MODULES} - {"TYPE_CHECKING", "annotations", "importlib"})
