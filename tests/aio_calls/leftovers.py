"""What is left of calls in memory."""

from __future__ import annotations

import gc
from typing import Any

import grpc

from grpcpool._aio.call import CallProxy
from grpcpool._aio.call_stages import Waiting
from grpcpool._aio.failed_call import Failed

_GRPC: Any = grpc.aio

NATIVE = (
    _GRPC._call.UnaryUnaryCall,
    _GRPC._call.UnaryStreamCall,
    _GRPC._call.StreamUnaryCall,
    _GRPC._call.StreamStreamCall,
)
# Without `Running`, which gRPC's own call holds in a cycle of its own.
OURS = (CallProxy, Failed, Waiting)


class Left:
    """The pool's own objects for calls that did not exist before."""

    def __init__(self) -> None:
        """Those that exist now do not count."""
        gc.collect()
        self._before = {id(each): each for each in self._all()}

    @staticmethod
    def _all() -> list[Any]:
        return [each for each in gc.get_objects() if isinstance(each, OURS)]

    def __call__(self, *but: type) -> list[str]:
        """All of them, except those of the types `but`."""
        return [repr(each) for each in self._all() if id(each) not in self._before and not isinstance(each, but)]
