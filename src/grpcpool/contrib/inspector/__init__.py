"""A live page of your pools, to mount in your own service; needs the extra ``inspector``.

It shows the current state of each pool (connections with their streams, waiters), the last minutes, and the events
with their reasons. It is an ASGI application, for Starlette, FastAPI and any other ASGI framework::

    inspector = Inspector(pool, other)
    app = Starlette(routes=[Mount("/grpcpool", inspector)], lifespan=inspector.lifespan)

Without ``lifespan`` the timeline is recorded only while a page is open. `serve` serves the page on its own.

It is read-only: it answers GET with the page and with JSON (``pools``, described in `PoolsDocument`), and cannot change
a pool. It shows names, counts, settings, and gRPC's own error messages about connections that failed to open, but no
payload, metadata, credentials or stacks. It has no authentication: protect it like the other internal pages of the
service.

It holds pools weakly: a pool that is dropped disappears from the page. In a server with several processes, each process
has its own inspector, which shows the pools of that process and names the process.
"""

from __future__ import annotations

from .._extra import without_extra

try:
    from ._app import Inspector
except ModuleNotFoundError as error:
    raise without_extra("inspector", error) from error
from ._document import (
    ChannelDocument,
    EventDocument,
    PoolDocument,
    PoolsDocument,
    StatsDocument,
    TimelineDocument,
    WaitsDocument,
)
from ._serve import Served, serve

__all__ = [
    "ChannelDocument",
    "EventDocument",
    "Inspector",
    "PoolDocument",
    "PoolsDocument",
    "Served",
    "StatsDocument",
    "TimelineDocument",
    "WaitsDocument",
    "serve",
]
