"""A plugin for pytest: asyncio pools run interceptors themselves."""

from __future__ import annotations

from typing import Any

from grpcpool._grpc import interceptor_chain
from grpcpool._grpc.own_chain import OWN_CHAINS


def pytest_configure(config: Any) -> None:
    """Applies to all tests."""
    interceptor_chain._chains = lambda: OWN_CHAINS  # type: ignore[assignment]
