"""A control plane, run in its own process by `control_plane`. It imports nothing of the project.

It speaks the aggregated discovery service, state of the world: a listener leads to a route, that to a cluster, and that
to the servers which `Assign` has named. All have the name of the service, and any name is valid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from envoy.config.cluster.v3 import cluster_pb2  # type: ignore[import-untyped]
from envoy.config.core.v3 import config_source_pb2  # type: ignore[import-untyped]
from envoy.config.endpoint.v3 import endpoint_pb2  # type: ignore[import-untyped]
from envoy.config.listener.v3 import listener_pb2  # type: ignore[import-untyped]
from envoy.config.route.v3 import route_pb2  # type: ignore[import-untyped]
from envoy.extensions.filters.http.router.v3 import router_pb2  # type: ignore[import-untyped]
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # type: ignore[import-untyped]
from envoy.service.discovery.v3 import discovery_pb2  # type: ignore[import-untyped]
from google.protobuf import any_pb2  # type: ignore[import-untyped]

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from support.serving import serve_until_input_ends

_TYPE = "type.googleapis.com/"


def _packed(message: Any) -> Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _ads() -> Any:
    return config_source_pb2.ConfigSource(ads={}, resource_api_version="V3")


def _listener(name: str) -> Any:
    manager = http_connection_manager_pb2.HttpConnectionManager(
        rds={"config_source": _ads(), "route_config_name": name},
        http_filters=[{"name": "router", "typed_config": _packed(router_pb2.Router())}],
    )
    return listener_pb2.Listener(name=name, api_listener={"api_listener": _packed(manager)})


def _route(name: str) -> Any:
    everything = {"match": {"prefix": ""}, "route": {"cluster": name}}
    host = {"name": name, "domains": ["*"], "routes": [everything]}
    return route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])


def _cluster(name: str) -> Any:
    return cluster_pb2.Cluster(name=name, type="EDS", eds_cluster_config={"eds_config": _ads()})


class ControlPlane:
    """Knows the servers of each service, and reports changes to all clients."""

    def __init__(self) -> None:
        """Knows none."""
        self._servers: dict[str, list[str]] = {}
        self._version = 1
        # By client: the types that it is to be sent.
        self._due: set[asyncio.Queue[str]] = set()
        self._resources: dict[str, Callable[[str], Any]] = {
            f"{_TYPE}envoy.config.listener.v3.Listener": _listener,
            f"{_TYPE}envoy.config.route.v3.RouteConfiguration": _route,
            f"{_TYPE}envoy.config.cluster.v3.Cluster": _cluster,
            _ENDPOINTS: self._endpoints,
        }

    async def assign(self, request: bytes, context: Any) -> bytes:
        """From now on a service has these servers."""
        told = json.loads(request)
        self._servers[told["name"]] = told["targets"]
        self._version += 1
        for due in self._due:
            due.put_nowait(_ENDPOINTS)
        return b""

    def _endpoints(self, name: str) -> Any:
        addresses = [target.rpartition(":") for target in self._servers.get(name, [])]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
            for host, _, port in addresses
        ]
        locality = {"locality": {"zone": "here"}, "load_balancing_weight": {"value": 1}, "lb_endpoints": endpoints}
        return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[locality] if endpoints else [])

    async def serve(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Sends a client what it asks for, and its servers again whenever they change."""
        names: dict[str, set[str]] = {}
        due: asyncio.Queue[str] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                if request.HasField("error_detail"):
                    sys.stderr.write(f"rejected: {request.type_url}: {request.error_detail.message}\n")
                # Otherwise it confirms what it was sent.
                if names.get(request.type_url) != set(request.resource_names):
                    names[request.type_url] = set(request.resource_names)
                    due.put_nowait(request.type_url)

        self._due.add(due)
        reading = asyncio.create_task(read())
        try:
            while True:
                type_url = await due.get()
                if type_url in names:
                    yield self._response(type_url, names[type_url])
        finally:
            self._due.discard(due)
            reading.cancel()

    def _response(self, type_url: str, names: set[str]) -> Any:
        make = self._resources[type_url]
        return discovery_pb2.DiscoveryResponse(
            version_info=str(self._version),
            nonce=str(self._version),
            type_url=type_url,
            resources=[_packed(make(name)) for name in sorted(names)],
        )


_ENDPOINTS = f"{_TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment"


async def serve(port: int) -> None:
    """Serves until standard input ends."""
    plane = ControlPlane()
    server = grpc.aio.server()
    stream = grpc.stream_stream_rpc_method_handler(
        plane.serve,
        request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
        response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
    )
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    methods: dict[str, Any] = {"Assign": grpc.unary_unary_rpc_method_handler(plane.assign)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(service, {"StreamAggregatedResources": stream}),
            grpc.method_handlers_generic_handler("test.Xds", methods),
        )
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, serve_until_input_ends, bound)


def main() -> None:
    """Takes the arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
