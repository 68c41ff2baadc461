"""The arguments of a call: a tuple, in the order in which gRPC's multicallables take them."""

from __future__ import annotations

from typing import Any, Final

Arguments = tuple[Any, float | None, Any, Any, bool | None, Any]
"""Request or request iterator, timeout, metadata, credentials, wait_for_ready, compression."""

# Where they stand in it.
REQUEST: Final = 0
TIMEOUT: Final = 1
METADATA: Final = 2
CREDENTIALS: Final = 3
WAIT_FOR_READY: Final = 4
COMPRESSION: Final = 5
