"""An interceptor that adds a token to each call, and renews it when the server says that it has expired.

It wraps the pool, so it runs once for each call, before a connection is chosen. While it waits, it holds no place.

TARGET=127.0.0.1:50051 python examples/auth_interceptor.py
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool


class Tokens:
    """Fetches a token if there is none or it has expired; one thread fetches it for all."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        """Fetches tokens with `fetch`, which may be slow."""
        self._fetch = fetch
        self._guard = threading.Lock()
        self._token = ""

    def get(self, *, instead_of: str = "") -> str:
        """Returns a token that differs from `instead_of`."""
        with self._guard:
            if self._token == instead_of:
                self._token = self._fetch()
            return self._token


class _Details(grpc.ClientCallDetails):
    """The details of a call, with a token in its metadata."""

    def __init__(self, details: grpc.ClientCallDetails, token: str) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*(details.metadata or ()), ("authorization", f"Bearer {token}"))
        self.credentials = details.credentials
        self.wait_for_ready = getattr(details, "wait_for_ready", None)
        self.compression = getattr(details, "compression", None)


class TokenInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Adds a token; if the server refuses it, tries once more with a new one."""

    def __init__(self, tokens: Tokens) -> None:
        """Takes tokens from `tokens`."""
        self._tokens = tokens

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Makes the call."""
        token = self._tokens.get()
        call = continuation(_Details(client_call_details, token), request)
        if call.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return call
        return continuation(_Details(client_call_details, self._tokens.get(instead_of=token)), request)


def main() -> None:
    """Calls a service that requires a token; the first token has already expired."""
    numbers = itertools.count(1)
    tokens = Tokens(lambda: f"token-{next(numbers)}")
    with grpcpool.insecure_channel(os.environ["TARGET"], name="orders") as pool:
        channel = grpc.intercept_channel(pool, TokenInterceptor(tokens))
        stub = HealthStub(channel)
        for _ in range(3):
            answer = stub.Check(HealthCheckRequest(service="secret"), timeout=5)
            print(f"status {answer.status} with {tokens.get()}, {pool.stats().acquired} calls so far")


if __name__ == "__main__":
    main()
