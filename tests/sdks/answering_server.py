"""A server that answers the methods of an SDK, at most 100 at a time on each connection, as most servers and proxies.

``python -m sdks.answering_server NAME`` answers the methods in `sdks.answers` of that name. It prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from sdks.answers import HOLD, Answer, answers_of


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """All methods take and return bytes."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers

    def service(self, details: Any) -> Any:
        answer = self._answers.get(details.method)
        if answer is None:
            return None
        if answer.kind == "unary":
            return grpc.unary_unary_rpc_method_handler(_unary(answer))
        if answer.kind == "stream":
            return grpc.unary_stream_rpc_method_handler(_stream(answer))
        return grpc.stream_stream_rpc_method_handler(_endless(answer))


def _unary(answer: Answer) -> Any:
    async def handle(_request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(HOLD)
        return answer.message

    return handle


def _stream(answer: Answer) -> Any:
    async def handle(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        await asyncio.sleep(HOLD)
        yield answer.message

    return handle


def _endless(answer: Answer) -> Any:
    async def handle(_requests: Any, _context: Any) -> AsyncIterator[bytes]:
        yield answer.message
        await asyncio.Event().wait()

    return handle


async def _serve(name: str) -> None:
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 100)])
    server.add_generic_rpc_handlers((_Methods(answers_of(name)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


def main() -> None:
    """Serves until it is killed."""
    asyncio.run(_serve(sys.argv[1]))


if __name__ == "__main__":
    main()
