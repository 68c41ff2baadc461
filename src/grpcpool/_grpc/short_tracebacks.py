"""Keeps the traceback of a failed call about as short as gRPC's own."""

from __future__ import annotations

from typing import Final

_PASSES_ON: Final = {"grpc", "grpcpool"}


def drop_frame_below(error: BaseException) -> None:
    """Drops a frame from the traceback of an error that is being handled: that of the function which has just failed.

    It passed the error on, and nothing more. The frame that raised the error stays, and so do frames of other code,
    such as an interceptor's.
    """
    here = error.__traceback__
    below = None if here is None else here.tb_next
    if here is None or below is None or below.tb_next is None:
        return
    package, _, _ = str(below.tb_frame.f_globals.get("__name__")).partition(".")
    if package in _PASSES_ON:
        here.tb_next = below.tb_next
