"""A small gRPC server, run as a process of its own by `support.servers`. It imports nothing of the project.

It prints its port when it serves, and ends when its standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc


class Load:
    """How many calls run on each connection, and how many ran at most."""

    def __init__(self) -> None:
        """Starts at none."""
        self._guard = threading.Lock()
        self._running: Counter[str] = Counter()
        self._most: dict[str, int] = {}

    @contextmanager
    def of(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a call while it runs."""
        peer = context.peer()
        with self._guard:
            self._running[peer] += 1
            self._most[peer] = max(self._most.get(peer, 0), self._running[peer])
        try:
            yield
        finally:
            with self._guard:
                self._running[peer] -= 1

    def take_peaks(self) -> bytes:
        """The most calls on each connection since this was asked last, as JSON."""
        with self._guard:
            peaks, self._most = self._most, {}
        return json.dumps(peaks).encode()


LOAD = Load()


def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answers with the request after as many milliseconds as it says."""
    with LOAD.of(context):
        time.sleep(int(request) / 1000)
    return request


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Fails with the status code that the request names."""
    context.abort(grpc.StatusCode[request.decode()], f"failed as asked: {request.decode()}")
    raise AssertionError  # abort() raises


def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """For ``n,ms``: n messages with so many milliseconds before each."""
    number, _, pause = request.decode().partition(",")
    with LOAD.of(context):
        for i in range(int(number)):
            time.sleep(int(pause or 0) / 1000)
            if not context.is_active():
                return
            yield str(i).encode()


def collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    """Answers with the requests in a row."""
    with LOAD.of(context):
        return b",".join(requests)


def chat(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answers each request with itself."""
    with LOAD.of(context):
        yield from requests


_UNARY: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]] = {
    "Echo": lambda request, context: request,
    "Slow": slow,
    "Fail": fail,
    "Pid": lambda request, context: str(os.getpid()).encode(),
    "Peer": lambda request, context: context.peer().encode(),
    "TakePeaks": lambda request, context: LOAD.take_peaks(),
}


def make_server(options: argparse.Namespace) -> tuple[grpc.Server, int]:
    """Makes a server that listens; says on which port."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(method) for name, method in _UNARY.items()
    }
    methods["Count"] = grpc.unary_stream_rpc_method_handler(count)
    methods["Collect"] = grpc.stream_unary_rpc_method_handler(collect)
    methods["Chat"] = grpc.stream_stream_rpc_method_handler(chat)
    settings = []
    if options.max_concurrent_streams:
        settings.append(("grpc.max_concurrent_streams", options.max_concurrent_streams))
    server = grpc.server(futures.ThreadPoolExecutor(options.threads), options=settings)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", methods)])
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    return server, port


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--max-concurrent-streams", type=int, default=0)
    server, port = make_server(parser.parse_args())
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
