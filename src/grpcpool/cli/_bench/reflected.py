"""What a server describes of itself by reflection, version ``v1`` or ``v1alpha``.

gRPC's own client asks for ``v1alpha`` only. The messages of both are alike, so that for a server that has dropped it
the path is replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

_VERSIONS = ("v1alpha", "v1")


class _Asking(grpc.StreamStreamClientInterceptor):
    """Asks for another version, and waits no longer than it may."""

    def __init__(self, version: str, timeout: float) -> None:
        self._version, self._timeout = version, timeout

    def intercept_stream_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        path = client_call_details.method.replace(".v1alpha.", f".{self._version}.")
        details = client_call_details._replace(method=path, timeout=self._timeout)  # type: ignore[attr-defined]
        return continuation(details, request_iterator)


def reflected_pool(channel: grpc.Channel, service: str, timeout: float) -> DescriptorPool:
    """Descriptors that are asked for as they are needed, while `channel` is open; those of `service` at once.

    Raises:
        grpc.RpcError: The server cannot be asked; ``UNIMPLEMENTED``: it serves no version of reflection.
    """
    for version in _VERSIONS:
        asking = grpc.intercept_channel(channel, _Asking(version, timeout))
        database = ProtoReflectionDescriptorDatabase(asking)
        try:
            database.get_services()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED or version == _VERSIONS[-1]:
                raise
        else:
            return _with(DescriptorPool(database), service)
    raise AssertionError(_VERSIONS)


def _with(pool: DescriptorPool, service: str) -> DescriptorPool:
    """That a service is missing, is found out by who looks for it."""
    with contextlib.suppress(KeyError):
        pool.FindServiceByName(service)
    return pool
