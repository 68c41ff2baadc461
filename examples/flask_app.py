"""Flask under gunicorn: the pool is created when the module is imported, before the workers are forked.

TARGET=127.0.0.1:50051 gunicorn --chdir examples --preload --workers 4 flask_app:app

In each worker the pool starts empty and opens its own connections. If the master has used the pool, its connections
stay untouched.
"""

from __future__ import annotations

import os
from typing import Any

import grpc
from flask import Flask
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool

app = Flask(__name__)
pool = grpcpool.insecure_channel(
    os.environ["TARGET"], config=grpcpool.PoolConfig(max_size=4, max_age=1800.0), name="orders"
)
stub = HealthStub(pool)


@app.get("/health/<service>")
def health(service: str) -> tuple[dict[str, Any], int]:
    """Makes one call, on the best of the pool's connections in this worker."""
    try:
        answer = stub.Check(HealthCheckRequest(service=service), timeout=2)
    except grpc.RpcError as error:
        return {"error": error.details()}, 502
    return {"status": answer.status, "pid": os.getpid(), "connections": pool.stats().size}, 200
