"""concurrent.futures and multiprocessing: a stub as an argument of tasks in other processes.

python examples/engines/process_pool.py 127.0.0.1:50051 spawn    # or forkserver, or fork

The stub is pickled with each task. In a worker process, all these stubs are over one pool.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool


def check(stub: HealthStub, services: list[str]) -> int:
    """Makes the calls of one task, several at once; returns the id of the process."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda service: stub.Check(HealthCheckRequest(service=service), timeout=10), services))
    return os.getpid()


def main(target: str, method: str) -> None:
    """Runs 100 tasks with 10 calls each, by both ways of the standard library."""
    config = grpcpool.PoolConfig(max_size=2, target_streams=4)
    stub = HealthStub(grpcpool.insecure_channel(target, config=config, name="orders"))
    context, tasks = multiprocessing.get_context(method), [["orders"] * 10] * 50
    with ProcessPoolExecutor(2, context) as executor:
        pids = list(executor.map(functools.partial(check, stub), tasks))
    with context.Pool(2) as workers:
        pids += workers.map(functools.partial(check, stub), tasks)
        workers.close()
        workers.join()
    print(f"{len(pids)} tasks in {len(set(pids))} processes")


if __name__ == "__main__":
    main(*sys.argv[1:])
