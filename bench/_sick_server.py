"""A server that can be made sick: ``python _sick_server.py``, then commands on standard input.

It prints its port. Each line of its input is JSON: ``{"code": "UNAVAILABLE", "share": 0.5}`` fails that share of the
calls, each after a millisecond; ``{"at_once": 2, "slower": 5}`` works on two calls at a time, five times as long on
each, while others queue; ``{}`` heals it. A call is answered with the port after the seconds in its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from typing import Any

import grpc.aio

_FAILS_AFTER = 0.001


async def main() -> None:
    """Serves until its input ends."""
    sickness: dict[str, Any] = {}
    room: contextlib.AbstractAsyncContextManager[Any] = contextlib.nullcontext()

    async def work(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if "code" in sickness and random.random() < sickness.get("share", 1.0):  # noqa: S311 -- no secret
            await asyncio.sleep(_FAILS_AFTER)
            await context.abort(grpc.StatusCode[sickness["code"]], "sick")
        async with room:
            await asyncio.sleep(float(request) * sickness.get("slower", 1.0))
        return str(port).encode()

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    handlers: dict[str, Any] = {"Work": grpc.unary_unary_rpc_method_handler(work)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("sick.Server", handlers),))
    await server.start()
    print(port, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        sickness.clear()
        sickness.update(json.loads(line))
        room = asyncio.Semaphore(sickness["at_once"]) if "at_once" in sickness else contextlib.nullcontext()
        print("done", flush=True)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
