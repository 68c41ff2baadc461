"""Reads a server's descriptions by reflection, version ``v1`` or ``v1alpha``.

gRPC's own client supports only ``v1alpha``. The messages of both versions are identical, so for servers with ``v1``
alone an interceptor replaces the path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from .._deadline import Deadline
from .metadata import Metadata

_VERSIONS = ("v1alpha", "v1")


class _VersionInterceptor(grpc.StreamStreamClientInterceptor):
    """Requests the given version, with the given metadata; all calls together end by the deadline."""

    def __init__(self, version: str, deadline: Deadline, metadata: Metadata) -> None:
        self._version, self._deadline, self._metadata = version, deadline, metadata

    def intercept_stream_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        path = client_call_details.method.replace(".v1alpha.", f".{self._version}.")
        changed = {"method": path, "timeout": self._deadline.left(), "metadata": self._metadata}
        details = client_call_details._replace(**changed)  # type: ignore[attr-defined]
        return continuation(details, request_iterator)


def reflected_pool(
    channel: grpc.Channel, service: str, deadline: Deadline, metadata: Metadata = ()
) -> tuple[DescriptorPool, Sequence[str]]:
    """Returns a pool that loads descriptors on demand, while `channel` is open, and the names of all services.

    The descriptors of `service` are loaded now.

    A server may describe files that need ever more files: all are loaded by `deadline`, or it fails.

    Raises:
        grpc.RpcError: The call failed; ``UNIMPLEMENTED``: the server supports no version of reflection.
        Exception: Whatever protobuf raises for descriptions that are not valid.
    """
    for version in _VERSIONS:
        intercepted = grpc.intercept_channel(channel, _VersionInterceptor(version, deadline, metadata))
        database = ProtoReflectionDescriptorDatabase(intercepted)
        try:
            services = database.get_services()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED or version == _VERSIONS[-1]:
                raise
        else:
            return _with_service(DescriptorPool(database), service), services
    raise AssertionError(_VERSIONS)


def _with_service(pool: DescriptorPool, service: str) -> DescriptorPool:
    """Loads the descriptors of `service`. If it does not exist, the caller's own lookup fails."""
    with contextlib.suppress(KeyError):
        pool.FindServiceByName(service)
    return pool
