"""Blue and green: moves a pool to other servers during calls, without losing one.

python examples/blue_green.py BLUE GREEN    # two addresses

The factory decides where new connections go. `refresh()` opens a successor for each old connection, which closes when
its last call has ended. (A pool for a name follows it by itself when it moves in DNS. If it moves behind a balancer,
`refresh()` alone is enough.)
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool


class Deployment:
    """Knows where the service is."""

    def __init__(self, target: str) -> None:
        """Starts at `target`."""
        self.target = target

    def channel(self) -> grpc.Channel:
        """The pool's factory: returns a channel to where the service is now."""
        return grpc.insecure_channel(self.target, grpcpool.isolated())


def call_until(over: threading.Event, stub: HealthStub, outcomes: Counter[str]) -> None:
    """Makes calls like any user of the pool, unaware of the move."""
    while not over.is_set():
        try:
            stub.Check(HealthCheckRequest(service="orders"), timeout=5)
            outcomes["completed"] += 1
        except grpc.RpcError as error:
            outcomes[f"failed: {error.details()}"] += 1


def main(blue: str, green: str) -> None:
    """Moves from blue to green under load."""
    deployment = Deployment(blue)
    outcomes: Counter[str] = Counter()
    over = threading.Event()
    with grpcpool.ChannelPool(deployment.channel, grpcpool.PoolConfig(min_size=2, max_size=4), name="orders") as pool:
        pool.open()
        callers = [threading.Thread(target=call_until, args=(over, HealthStub(pool), outcomes)) for _ in range(8)]
        for caller in callers:
            caller.start()
        time.sleep(0.5)

        old = {channel.id for channel in pool.stats().channels}
        deployment.target = green
        pool.refresh()
        while old & {channel.id for channel in pool.stats().channels}:
            time.sleep(0.01)
        print(f"{len(old)} connections replaced; nothing runs on {blue} any more")

        time.sleep(0.5)
        over.set()
        for caller in callers:
            caller.join()
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
