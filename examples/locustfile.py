"""Locust: load on a gRPC service from many machines, by Locust's own master and workers.

locust -f examples/locustfile.py --headless -u 200 -r 50 -t 30s --host 127.0.0.1:50051
locust -f examples/locustfile.py --master      # and on each machine: --worker --master-host ...

All users of a process share one pool, as the threads of a service would.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import grpc
import grpc.experimental.gevent
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from locust import User, between, task

import grpcpool

# Locust runs its users on gevent; this makes gRPC work with it.
grpc.experimental.gevent.init_gevent()


@functools.cache
def pool_of(target: str) -> grpcpool.ChannelPool:
    """Returns the pool of this process."""
    return grpcpool.insecure_channel(target, config=grpcpool.PoolConfig(max_size=8), name="load")


class HealthUser(User):
    """Checks the health of a service repeatedly."""

    wait_time = between(0.0, 0.01)

    def on_start(self) -> None:
        """Creates a stub per user, which is cheap."""
        self.stub = HealthStub(pool_of(self.host))

    @task
    def check(self) -> None:
        """Makes one call, and reports it to Locust."""
        began = time.perf_counter()
        report: dict[str, Any] = {
            "request_type": "grpc",
            "name": "Health.Check",
            "response_length": 0,
            "exception": None,
        }
        try:
            answer = self.stub.Check(HealthCheckRequest(service="orders"), timeout=5)
            report["response_length"] = answer.ByteSize()
        except grpc.RpcError as error:
            report["exception"] = error
        report["response_time"] = 1000 * (time.perf_counter() - began)
        self.environment.events.request.fire(**report)
