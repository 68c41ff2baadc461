"""The server for the tests of calls, run in its own process by `call_server`. It imports nothing of the project.

Four methods, one of each kind, do what the (first) request says; see `call_server.CallServer`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from support.serving import Running, serve_until_input_ends

_HELD = Running()
"""By tag."""
_LET_GO: dict[str, threading.Event] = {}
"""By tag, too: set to end the call."""
_WORKING = Running()
"""By the client's address."""
_NOTES: queue.SimpleQueue[str] = queue.SimpleQueue()


def _hold(tag: str, context: grpc.ServicerContext) -> None:
    over = _LET_GO[tag] = threading.Event()
    with _HELD.one(tag):
        if context.add_callback(over.set):
            over.wait(60)


def _answers(command: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """What the command asks for, as a stream; a call with one response gets the first item."""
    verb, _, argument = command.decode().partition(":")
    match verb:
        case "fail":
            context.set_trailing_metadata((("why", "because"),))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        case "hold":
            yield b"0"
            _hold(argument, context)
        case "left":
            yield str(context.time_remaining()).encode()
        case "note":
            _NOTES.put(argument)
            yield command
        case "work":
            with _WORKING.one(context.peer()):
                time.sleep(int(argument) / 1000)
            yield command
        case "metadata":
            yield json.dumps([[key, str(value)] for key, value in context.invocation_metadata()]).encode()
        case "peer":
            yield context.peer().encode()
        case "serial":
            names: Any = context.auth_context().get("transport_security_type", [])
            yield b",".join(names)
        case "ok":
            context.send_initial_metadata((("initial", "yes"),))
            context.set_trailing_metadata((("trailing", "yes"),))
            yield from (b"0", b"1", b"2")
        case _:
            yield command


def _uu(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request.startswith(b"hold:"):
        _hold(request.decode()[len("hold:") :], context)
    return next(_answers(request, context))


def _us(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    if request != b"none":
        yield from _answers(request, context)


def _su(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    first = next(requests)
    if not first.startswith(b"hold:"):
        for _ in requests:
            pass
    return _uu(first, context)


def _ss(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from _us(next(requests), context)


# The health service, if there is one.
_HEALTH: list[Any] = []


def _tell(request: bytes, context: grpc.ServicerContext) -> bytes:
    match request:
        case b"held":
            answer: Any = _HELD.names()
        case b"notes":
            answer = [_NOTES.get() for _ in range(_NOTES.qsize())]
        case b"SERVING" | b"NOT_SERVING":
            # Only if it has the services.
            from grpc_health.v1 import health_pb2  # type: ignore[import-untyped] # noqa: PLC0415

            answer = None
            _HEALTH[0].set("", getattr(health_pb2.HealthCheckResponse, request.decode()))
        case b"most":
            answer = _WORKING.take_peaks()
        case _:
            _LET_GO[request.decode()].set()
            answer = None
    return json.dumps(answer).encode()


def _publish(request: bytes, context: grpc.ServicerContext) -> bytes:
    """A `google.pubsub.v1.PublishResponse` with as many message ids as there are messages in the request."""
    number = sum(1 for field, _ in _fields(request) if field == _MESSAGES)
    ids = [f"id-{i}".encode() for i in range(number)]
    return b"".join(b"\x0a" + bytes([len(i)]) + i for i in ids)


_MESSAGES = 2


def _fields(message: bytes) -> Iterable[tuple[int, bytes]]:
    """The length-delimited fields of a small protobuf message."""
    at = 0
    while at < len(message):
        field, length = message[at] >> 3, message[at + 1]
        yield field, message[at + 2 : at + 2 + length]
        at += 2 + length


def _add_health(server: grpc.Server) -> None:
    # Only a few tests need this extra.
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: PLC0415
    from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped] # noqa: PLC0415

    servicer = health.HealthServicer()
    servicer.set("orders", health_pb2.HealthCheckResponse.SERVING)
    _HEALTH.append(servicer)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)


def _make_server(options: argparse.Namespace) -> tuple[grpc.Server, int]:
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Uu": grpc.unary_unary_rpc_method_handler(_uu),
        "Us": grpc.unary_stream_rpc_method_handler(_us),
        "Su": grpc.stream_unary_rpc_method_handler(_su),
        "Ss": grpc.stream_stream_rpc_method_handler(_ss),
        "Tell": grpc.unary_unary_rpc_method_handler(_tell),
    }
    publisher: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Publish": grpc.unary_unary_rpc_method_handler(_publish)}
    settings: list[tuple[str, Any]] = [("grpc.max_concurrent_streams", 1000)]
    if options.no_gzip:
        identity_and_deflate = 0b011
        settings.append(("grpc.compression_enabled_algorithms_bitset", identity_and_deflate))
    server = grpc.server(futures.ThreadPoolExecutor(options.threads), options=settings)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler("calls.Test", methods),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
        ]
    )
    if options.services:
        _add_health(server)
    address = f"127.0.0.1:{options.port}"
    if options.certificate is None:
        return server, server.add_insecure_port(address)
    key, chain = (pathlib.Path(f"{options.certificate}.{kind}").read_bytes() for kind in ("key", "crt"))
    return server, server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=300)
    parser.add_argument("--certificate", default=None)
    parser.add_argument("--no-gzip", action="store_true")
    parser.add_argument("--services", action="store_true")
    server, port = _make_server(parser.parse_args())
    server.start()
    serve_until_input_ends(port)


if __name__ == "__main__":
    main()
