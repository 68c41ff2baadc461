"""Ray: one stub in tasks, in actors with threads, in actors on asyncio, and in `map_batches`.

python examples/engines/ray_workers.py 127.0.0.1:50051

Ray pickles functions, and the arguments of actors. In a worker process, all stubs are over one pool. An actor on
asyncio needs a stub over `grpcpool.aio`, whose pool is bound to the actor's loop.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool

REQUEST = HealthCheckRequest(service="orders")
CONFIG = grpcpool.PoolConfig(max_size=2, target_streams=4)


@ray.remote
class Checker:
    """Makes calls from several threads."""

    def __init__(self, stub: HealthStub) -> None:
        """With the stub that it is sent."""
        self.stub = stub

    def check(self) -> int:
        """Makes one call; returns the id of the process."""
        self.stub.Check(REQUEST, timeout=10)
        return os.getpid()


@ray.remote
class AsyncChecker(Checker.__ray_actor_class__):  # type: ignore[name-defined, misc]
    """Makes calls from several tasks on one loop."""

    async def check(self) -> int:
        """Makes one call; returns the id of the process."""
        await self.stub.Check(REQUEST, timeout=10)
        return os.getpid()


def main(target: str) -> None:
    """Runs 1,000 tasks in each way."""
    stub = HealthStub(grpcpool.insecure_channel(target, config=CONFIG, name="orders"))
    aio_stub = HealthStub(grpcpool.aio.insecure_channel(target, config=CONFIG, name="orders"))

    @ray.remote
    def check() -> int:
        stub.Check(REQUEST, timeout=10)
        return os.getpid()

    def check_batch(batch: dict[str, Any]) -> dict[str, list[int]]:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: stub.Check(REQUEST, timeout=10), batch["id"]))
        return {"pid": [os.getpid()] * len(batch["id"])}

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        threaded = Checker.options(max_concurrency=8).remote(stub)  # type: ignore[attr-defined]
        on_asyncio = AsyncChecker.options(max_concurrency=8).remote(aio_stub)
        rows = ray.data.range(1000, override_num_blocks=20).map_batches(check_batch, batch_size=50).take_all()
        ways = {
            "tasks": ray.get([check.remote() for _ in range(1000)]),
            "calls of a threaded actor": ray.get([threaded.check.remote() for _ in range(1000)]),
            "calls of an async actor": ray.get([on_asyncio.check.remote() for _ in range(1000)]),
            "rows": [row["pid"] for row in rows],
        }
    finally:
        ray.shutdown()
    for way, pids in ways.items():
        print(f"{len(pids)} {way} in {len(set(pids))} processes")


if __name__ == "__main__":
    main(*sys.argv[1:])
