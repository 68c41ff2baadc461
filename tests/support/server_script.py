"""The tests' gRPC server, on asyncio, run in its own process by `servers`. It imports nothing of the project.

It bears hundreds of calls at once. It prints its port when it serves, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import pathlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from support.serving import Running, serve_until_input_ends

RUNNING = Running()
"""By the client's address."""


async def slow(request: bytes, context: Any) -> bytes:
    """Answers with the request after as many milliseconds as it says."""
    with RUNNING.one(context.peer()):
        await asyncio.sleep(int(request) / 1000)
    return request


class Together:
    """A method that answers its calls when as many run at once as their requests say."""

    def __init__(self) -> None:
        """Nobody calls yet."""
        self._calls = 0
        self._complete = asyncio.Event()

    async def answer(self, request: bytes, context: Any) -> bytes:
        """Answers with the request."""
        with RUNNING.one(context.peer()):
            self._calls += 1
            complete = self._complete
            if self._calls == int(request):
                self._calls, self._complete = 0, asyncio.Event()
                complete.set()
            await complete.wait()
        return request


async def pid(request: bytes, context: Any) -> bytes:
    """Answers with the process's id, after as many milliseconds as the request says, if it says any."""
    with RUNNING.one(context.peer()):
        await asyncio.sleep(int(request or 0) / 1000)
    return str(os.getpid()).encode()


_FAILED_WITH_WORDS = itertools.count(1)


async def fail(request: bytes, context: Any) -> bytes:
    """Fails with the status code that the request names; for ``CODE|words`` with these and a number that counts up."""
    code, _, words = request.decode().partition("|")
    details = f"{words} ({next(_FAILED_WITH_WORDS)})" if words else f"failed as asked: {code}"
    await context.abort(grpc.StatusCode[code], details)
    raise AssertionError  # abort() raises


class Relay:
    """A server that is stopping answers with what another server has told it, which it could not reach."""

    words = "failed to connect to all addresses; last error: UNKNOWN: ipv4:192.0.2.1:1: No route to host"

    def __init__(self, server: grpc.aio.Server) -> None:
        """Of that server."""
        self._server = server
        self._stopping: asyncio.Task[None] | None = None

    async def relay(self, request: bytes, context: Any) -> bytes:
        """Answers after as many milliseconds as the request says; relays an error if the server is stopping then.

        ``700|words`` relays these words; ``700|words|x-key`` also sends metadata with that key first.
        """
        milliseconds, _, rest = request.decode().partition("|")
        words, _, key = rest.partition("|")
        with RUNNING.one(context.peer()):
            await asyncio.sleep(int(milliseconds) / 1000)
        if self._stopping is not None:
            if key:
                await context.send_initial_metadata([(key, "1")])
            await context.abort(grpc.StatusCode.UNAVAILABLE, words or self.words)
        return request

    async def stop(self, request: bytes, context: Any) -> bytes:
        """Accepts no more connections and calls; those that run go on."""
        self._stopping = asyncio.ensure_future(self._server.stop(grace=30))
        return request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """For ``n,ms``: n messages, each after a pause of ms milliseconds."""
    number, _, pause = request.decode().partition(",")
    with RUNNING.one(context.peer()):
        for i in range(int(number)):
            await asyncio.sleep(int(pause or 0) / 1000)
            yield str(i).encode()


async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
    """Answers with the requests joined."""
    with RUNNING.one(context.peer()):
        return b",".join([request async for request in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answers each request with itself."""
    with RUNNING.one(context.peer()):
        async for request in requests:
            yield request


def answering(answer: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """A method that answers at once."""

    async def method(request: bytes, context: Any) -> bytes:
        return answer(request, context)

    return method


_UNARY: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {
    "Echo": answering(lambda request, context: request),
    "Slow": slow,
    "Together": Together().answer,
    "Fail": fail,
    "Pid": pid,
    "Peer": answering(lambda request, context: context.peer().encode()),
    "Running": answering(lambda request, context: str(RUNNING.total()).encode()),
    "TakePeaks": answering(lambda request, context: json.dumps(RUNNING.take_peaks()).encode()),
}


def option(text: str) -> tuple[str, int]:
    """Reads ``name=number``."""
    name, _, value = text.partition("=")
    return name, int(value)


async def serve(host: str, port: int, options: list[tuple[str, int]], credentials: Any) -> None:
    """Serves until standard input ends."""
    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in _UNARY.items()}
    methods["Count"] = grpc.unary_stream_rpc_method_handler(count)
    methods["Collect"] = grpc.stream_unary_rpc_method_handler(collect)
    methods["Chat"] = grpc.stream_stream_rpc_method_handler(chat)
    server = grpc.aio.server(options=options)
    relay = Relay(server)
    methods["Relay"] = grpc.unary_unary_rpc_method_handler(relay.relay)
    methods["Stop"] = grpc.unary_unary_rpc_method_handler(relay.stop)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    if credentials is None:
        bound = server.add_insecure_port(f"{host}:{port}")
    else:
        bound = server.add_secure_port(f"{host}:{port}", credentials)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, serve_until_input_ends, bound)


def main() -> None:
    """Takes the arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", default=None)
    parser.add_argument("--option", type=option, action="append", default=[])
    arguments = parser.parse_args()
    credentials = None
    if arguments.certificate is not None:
        key, chain = (pathlib.Path(f"{arguments.certificate}.{kind}").read_bytes() for kind in ("key", "crt"))
        credentials = grpc.ssl_server_credentials([(key, chain)])
    asyncio.run(serve(arguments.host, arguments.port, arguments.option, credentials))


if __name__ == "__main__":
    main()
