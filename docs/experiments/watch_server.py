"""A server with short calls and watches: prints its port, and ends when its standard input does.

It allows 100 streams per connection. A watch sends one message at once and then nothing, until it is cancelled.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE, SHORT, WATCH = "watch.Server", "Short", "Watch"
STREAMS, WORK = 100, 0.005


async def short(request: bytes, _: Any) -> bytes:
    """Answers after a moment."""
    await asyncio.sleep(WORK)
    return request


async def watch(request: bytes, _: Any) -> AsyncIterator[bytes]:
    """Answers once, and stays open."""
    yield request
    await asyncio.Event().wait()


async def main() -> None:
    """Serves until standard input ends."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", STREAMS)])
    port = server.add_insecure_port("127.0.0.1:0")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        SHORT: grpc.unary_unary_rpc_method_handler(short),
        WATCH: grpc.unary_stream_rpc_method_handler(watch),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
