"""FastAPI: an asyncio pool that lives as long as the application, and its live page.

TARGET=127.0.0.1:50051 uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import grpc
from fastapi import FastAPI, HTTPException, Request
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool.aio
from grpcpool.contrib.inspector import Inspector

inspector = Inspector()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the pool before the first request; at shutdown its calls have 5 s to end."""
    config = grpcpool.PoolConfig.from_env("ORDERS_POOL").replace(close_grace=5.0)
    async with grpcpool.aio.insecure_channel(os.environ["TARGET"], config=config, name="orders") as pool:
        await pool.open()
        inspector.watch(pool)
        app.state.health = HealthStub(pool)
        async with inspector.lifespan(app):
            yield


app = FastAPI(lifespan=lifespan)
app.mount("/grpcpool", inspector)


@app.get("/health/{service}")
async def health(service: str, request: Request) -> dict[str, int]:
    """Makes one call, on the best of the pool's connections."""
    try:
        answer = await request.app.state.health.Check(HealthCheckRequest(service=service), timeout=2)
    except grpc.aio.AioRpcError as error:
        raise HTTPException(502, error.details()) from error
    return {"status": answer.status}
