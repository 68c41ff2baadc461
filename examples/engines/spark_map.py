"""PySpark: a stub that the function of `mapInPandas` refers to, in the worker processes of the executors.

python examples/engines/spark_map.py 127.0.0.1:50051

Spark pickles the function with the stub. It starts a process for each task that runs at once, and keeps it for others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from pyspark.sql import SparkSession

import grpcpool


def main(target: str) -> None:
    """Makes a call for each of 1,000 rows, in 100 tasks."""
    config = grpcpool.PoolConfig(max_size=2, target_streams=4)
    stub = HealthStub(grpcpool.insecure_channel(target, config=config, name="orders"))

    def check(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        with ThreadPoolExecutor(8) as threads:
            for batch in batches:
                requests = [HealthCheckRequest(service="orders") for _ in batch.id]
                answers = list(threads.map(lambda request: stub.Check(request, timeout=10), requests))
                yield pd.DataFrame({"pid": os.getpid(), "status": [answer.status for answer in answers]})

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = spark.range(0, 1000, 1, 100).mapInPandas(check, "pid long, status long").collect()
    finally:
        spark.stop()
    print(f"{len(rows)} rows in {len({row.pid for row in rows})} processes")


if __name__ == "__main__":
    main(*sys.argv[1:])
