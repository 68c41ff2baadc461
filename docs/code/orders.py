"""A shop's orders: a gRPC server, and the stub for its clients.

``python orders.py 50051`` serves on that port; without an argument, on a free port. With the files of a certificate and
of its key, it serves over TLS; with those of a certificate authority, too, clients must have a certificate from it. It
prints its address, and ends when its standard input does (Ctrl-D), or on Ctrl-C. ``protoc`` generates such a stub from
a ``.proto`` file; here messages are plain text.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class OrdersStub:
    """Calls the service ``shop.Orders`` over any kind of channel."""

    def __init__(self, channel: Any) -> None:
        """Takes a `channel`: a `grpc.Channel`, a `grpc.aio.Channel`, a pool or a lease."""
        self.Get = channel.unary_unary("/shop.Orders/Get", str.encode, bytes.decode)
        self.List = channel.unary_stream("/shop.Orders/List", str.encode, bytes.decode)
        self.Import = channel.stream_unary("/shop.Orders/Import", str.encode, bytes.decode)
        self.Track = channel.stream_stream("/shop.Orders/Track", str.encode, bytes.decode)


def get(request: str, context: grpc.ServicerContext) -> str:
    """Returns one order, after 50 ms of work; an order must have a number."""
    time.sleep(0.05)
    if not request:
        context.abort(grpc.StatusCode.NOT_FOUND, "which order?")
    return f"order {request}"


def list_(request: str, _: grpc.ServicerContext) -> Iterator[str]:
    """Yields as many orders as the request says, one every millisecond."""
    for number in range(1, int(request) + 1):
        time.sleep(0.001)
        yield f"order {number}"


def import_(requests: Iterator[str], _: grpc.ServicerContext) -> str:
    """Returns how many orders it received."""
    return f"{sum(1 for _ in requests)} orders"


def track(requests: Iterator[str], _: grpc.ServicerContext) -> Iterator[str]:
    """Yields where each order is."""
    for request in requests:
        yield f"order {request} is on its way"


def start(port: str = "0", *files: str) -> tuple[grpc.Server, str]:
    """Starts a server on the loopback interface; returns it and its address.

    The `files`, if any, are of the certificate, of its key, and of the authority of the clients' certificates.
    """
    handlers: dict[str, grpc.RpcMethodHandler[str, str]] = {
        "Get": grpc.unary_unary_rpc_method_handler(get, bytes.decode, str.encode),
        "List": grpc.unary_stream_rpc_method_handler(list_, bytes.decode, str.encode),
        "Import": grpc.stream_unary_rpc_method_handler(import_, bytes.decode, str.encode),
        "Track": grpc.stream_stream_rpc_method_handler(track, bytes.decode, str.encode),
    }
    # Otherwise two servers could share a port without a word, and each would get some of the connections.
    options = [("grpc.max_concurrent_streams", 100), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(512), options=options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Orders", handlers)])
    address = f"127.0.0.1:{port}"
    if files:
        certificate, key, *authority = (pathlib.Path(file).read_bytes() for file in files)
        credentials = grpc.ssl_server_credentials([(key, certificate)], next(iter(authority), None), bool(authority))
        bound = server.add_secure_port(address, credentials)
    else:
        bound = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{bound}"


def main() -> None:
    """Serves until standard input ends."""
    server, address = start(*sys.argv[1:])
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
