"""Keeps the traceback of a failed call about as short as gRPC's own."""

from __future__ import annotations

from typing import Final

_PASSES_ON: Final = {"grpc", "grpcpool"}


def drop_frames_below(error: BaseException) -> None:
    """Drops frames from the traceback of an error that is being handled: those of the functions that passed it on here.

    The frame that raised the error stays. So do frames of other code, such as an interceptor's, and all below them.
    """
    here = error.__traceback__
    below = None if here is None else here.tb_next
    while here is not None and below is not None and below.tb_next is not None:
        package, _, _ = str(below.tb_frame.f_globals.get("__name__")).partition(".")
        if package not in _PASSES_ON:
            return
        here.tb_next = below = below.tb_next
