"""Methods that a stub registers with its channel (since 1.63), so that gRPC need not send their names each time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes_registered(make: Callable[..., Any]) -> bool:
    """Whether this maker of multicallables has ``_registered_method``: those of other makes may not."""
    try:
        return "_registered_method" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False
