"""Which release of gRPC this is: some of what it does by itself depends on it."""

from __future__ import annotations

from typing import Final

import grpc

GRPC_RELEASE: Final = tuple(int(part) for part in grpc.__version__.split(".")[:2])
"""Major and minor number."""
