"""gRPC's own constructors of channels, whatever stands in their place."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from .client_modules import AIO_CHANNELS


def own_constructor(home: types.ModuleType, name: str) -> Callable[..., Any] | None:
    """The function that gRPC's code has by this name in the module `home`; `None` if it is not found."""
    if home.__name__ == "grpc.aio":
        return getattr(sys.modules.get(AIO_CHANNELS), name, None)
    code_of = getattr(getattr(home.__spec__, "loader", None), "get_code", None)
    code = None if code_of is None else code_of(home.__name__)
    for found in () if code is None else code.co_consts:
        if isinstance(found, types.CodeType) and found.co_name == name:
            # Each argument but the target may be left out.
            return types.FunctionType(found, vars(home), name, (None,) * (found.co_argcount - 1))
    return None
