"""joblib with loky, its default: a stub as an argument of tasks.

python examples/engines/joblib_loky.py 127.0.0.1:50051

loky pickles functions that other processes cannot import, and with them what they refer to, such as the stub.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from joblib import Parallel, delayed

import grpcpool


def main(target: str) -> None:
    """Runs 100 tasks with 10 calls each."""
    config = grpcpool.PoolConfig(max_size=2, target_streams=4)
    stub = HealthStub(grpcpool.insecure_channel(target, config=config, name="orders"))

    def check(services: list[str]) -> int:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda service: stub.Check(HealthCheckRequest(service=service), timeout=10), services))
        return os.getpid()

    pids = Parallel(n_jobs=2)(delayed(check)(["orders"] * 10) for _ in range(100))
    print(f"{len(pids)} tasks in {len(set(pids))} processes")


if __name__ == "__main__":
    main(*sys.argv[1:])
