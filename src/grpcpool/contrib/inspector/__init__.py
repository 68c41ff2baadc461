"""A live page of one's pools, to be mounted in one's own service; needs the extra ``inspector``.

It shows what each pool does now (connections with the streams on them, who waits), what it did in the last minutes,
and why. It is an ASGI application, for Starlette, FastAPI and whatever else mounts one::

    inspector = Inspector(pool, other)
    app = Starlette(routes=[Mount("/grpcpool", inspector)], lifespan=inspector.lifespan)

Without ``lifespan`` the last minutes are remembered only while somebody looks. `serve` has it served alone.

It is read only: it answers GET with the page and with JSON (``pools``, described in `PoolsDocument`), and there is
nothing with which a pool could be changed. It shows names, figures, settings, and gRPC's own words about connections
that could not be made, but no payload, metadata, credentials or stacks. It asks nobody who they are: put it behind
what guards the other inner pages of the service.

It holds pools weakly: one that nobody else holds is gone from the page. A server with several processes has as many
inspectors, of which each knows the pools of its own process, and says which that is.
"""

from __future__ import annotations

from ._app import Inspector
from ._document import ChannelDocument, EventDocument, PoolDocument, PoolsDocument, StatsDocument, TimelineDocument
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
    "serve",
]
