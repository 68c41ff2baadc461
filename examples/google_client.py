"""Google's generated clients over a pool: their transport accepts any channel.

python examples/google_client.py 127.0.0.1:8085    # the address of a Pub/Sub emulator
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

import grpcpool

TOPIC = "projects/shop/topics/orders"


def main(target: str) -> None:
    """Publishes from many threads, more than one connection can carry calls."""
    config = grpcpool.PoolConfig(max_size=4)
    with grpcpool.insecure_channel(target, config=config, name="pubsub") as pool:
        client = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=pool))
        with ThreadPoolExecutor(100) as threads:
            list(threads.map(lambda number: client.publish(TOPIC, str(number).encode()).result(30), range(1000)))
        client.stop()
        stats = pool.stats()
    print(f"{stats.acquired} calls over {stats.opened} connections, {stats.timeouts} timed out")


if __name__ == "__main__":
    main(sys.argv[1])
