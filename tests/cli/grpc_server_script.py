"""A gRPC server for the tests of the commands, run as a process of its own. Prints its port; ends when its input does.

It has health, reflection, and the service of ``counting.proto``, which reflection does not list.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection, reflection_pb2  # type: ignore[import-untyped]

_CERTIFICATE = pathlib.Path(__file__).parents[1] / "support" / "certs" / "localhost"


def _count(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """Yields three empty messages, or fails if the request is not empty."""
    if request:
        raise ValueError("as requested")
    for _number in range(3):
        yield b""


class _RequiresToken(grpc.ServerInterceptor):
    """Rejects calls without this token, reflection included."""

    def __init__(self, token: str) -> None:
        self._expected = {("authorization", f"Bearer {token}"), ("token-bin", token.encode())}

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if self._expected <= {(name, value) for name, value in details.invocation_metadata}:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        )


def _serve_services(server: grpc.Server, options: argparse.Namespace) -> None:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Count": grpc.unary_stream_rpc_method_handler(_count)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("cli.Counting", handlers)])
    if options.bare:
        return
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [health.SERVICE_NAME, reflection.SERVICE_NAME]
    if options.v1:
        _serve_reflection_v1(server, names)
    else:
        reflection.enable_server_reflection(names, server)


def _serve_reflection_v1(server: grpc.Server, names: list[str]) -> None:
    """Serves reflection v1 without v1alpha; the messages of both are identical."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        reflection.ReflectionServicer(names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    service = "grpc.reflection.v1.ServerReflection"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])


def _listen(server: grpc.Server, options: argparse.Namespace) -> int:
    if options.unix:
        server.add_insecure_port(f"unix:{options.unix}")
        return 1
    if not options.tls:
        return server.add_insecure_port("127.0.0.1:0")
    key, certificate = (_CERTIFICATE.with_suffix(end).read_bytes() for end in (".key", ".crt"))
    trusted = certificate if options.mutual else None
    credentials = grpc.ssl_server_credentials([(key, certificate)], trusted, options.mutual)
    return server.add_secure_port("127.0.0.1:0", credentials)


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--mutual", action="store_true")
    parser.add_argument("--bare", action="store_true", help="without health and reflection services")
    parser.add_argument("--v1", action="store_true", help="reflection v1 without v1alpha")
    parser.add_argument("--unix", default="")
    parser.add_argument("--streams", type=int, help="concurrent streams of a connection")
    parser.add_argument("--token", help="required of each call: as a bearer token, and in token-bin")
    options = parser.parse_args()
    limit = [] if options.streams is None else [("grpc.max_concurrent_streams", options.streams)]
    interceptors: list[grpc.ServerInterceptor] = [] if options.token is None else [_RequiresToken(options.token)]
    settings = [*limit, ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(32), interceptors=interceptors, options=settings)
    _serve_services(server, options)
    port = _listen(server, options)
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
