"""Dask: a stub that tasks refer to, in the processes of a cluster.

python examples/engines/dask_cluster.py 127.0.0.1:50051

The function is pickled with the stub. In a worker process, the tasks of all its threads are over one pool.
"""

from __future__ import annotations

import os
import sys

from dask.distributed import Client, LocalCluster
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool


def main(target: str) -> None:
    """Runs 1,000 tasks with one call each."""
    config = grpcpool.PoolConfig(max_size=2, target_streams=4)
    stub = HealthStub(grpcpool.insecure_channel(target, config=config, name="orders"))

    def check(_number: int) -> int:
        stub.Check(HealthCheckRequest(service="orders"), timeout=10)
        return os.getpid()

    with (
        LocalCluster(n_workers=2, threads_per_worker=8, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        pids = client.gather(client.map(check, range(1000)))
    print(f"{len(pids)} tasks in {len(set(pids))} processes")


if __name__ == "__main__":
    main(*sys.argv[1:])
