"""A server with gRPC's health service, for the other examples: prints its address, and serves until it is stopped.

python examples/server.py
"""

from __future__ import annotations

import time
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

SERVICE = "orders"


class SlowHealth(HealthServicer):
    """Takes as long as a small query."""

    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 -- gRPC's name
        """Answers after a while; requires a token for the service ``secret``."""
        time.sleep(0.01)
        if request.service == "secret" and ("authorization", "Bearer token-2") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or has expired")
        return super().Check(request, context)


def main() -> None:
    """Serves until the process is stopped."""
    server = grpc.server(futures.ThreadPoolExecutor(32))
    health = SlowHealth()
    for service in (SERVICE, "secret"):
        health.set(service, HealthCheckResponse.SERVING)
    add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
