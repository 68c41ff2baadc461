"""Says, once, what is lost when gRPC no longer has a name that the pool depends on."""

from __future__ import annotations

import logging

import grpc

from .facts import FACT_OF

_logger = logging.getLogger("grpcpool")

# The names for which a warning was logged.
warned: set[str] = set()


def warn_of_missing(name: str) -> None:
    """Logs a warning, the first time in a process, that gRPC has no `name`, and what follows from that."""
    if name not in warned:
        warned.add(name)
        _logger.warning("grpcio %s has no %s: %s", grpc.__version__, name, FACT_OF[name].fallback)
