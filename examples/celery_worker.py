"""Celery: a pool in each worker process.

TARGET=127.0.0.1:50051 celery --workdir examples --app celery_worker worker --concurrency 4

The pool is created when the module is imported. Celery forks its processes afterwards, and in each the pool starts
empty. When the process ends, the pool is closed with a grace period for the calls of stopped tasks.
"""

from __future__ import annotations

import os
from typing import Any

import grpc
from celery import Celery
from celery.signals import worker_process_shutdown
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool

app = Celery("orders", broker=os.environ.get("BROKER", "memory://"), backend=os.environ.get("BACKEND"))
if "CELERY_SETTINGS" in os.environ:
    app.config_from_object(os.environ["CELERY_SETTINGS"])
pool = grpcpool.insecure_channel(os.environ["TARGET"], config=grpcpool.PoolConfig(max_size=2), name="orders")
stub = HealthStub(pool)


@worker_process_shutdown.connect
def close_pool(**_: Any) -> None:
    """Closes the pool when Celery ends the process."""
    pool.close(grace=5.0)


@app.task(autoretry_for=(grpc.RpcError,), retry_backoff=True, max_retries=3)
def check(service: str) -> dict[str, int]:
    """Makes one call, on the best of the pool's connections in this process."""
    answer = stub.Check(HealthCheckRequest(service=service), timeout=2)
    return {"status": answer.status, "pid": os.getpid()}
