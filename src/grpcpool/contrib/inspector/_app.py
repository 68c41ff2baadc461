"""The inspector: an ASGI application that shows pools, which it holds weakly.

Each request takes a sample, so that an open page needs no background work; only the lifespan, if the application uses
it, runs a task. Every response has headers that allow the page nothing except its own files.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from functools import cache, partial
from importlib import resources

import grpc
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ... import aio
from ..._shared.pool_base import PoolBase
from ..._sync.pool import ChannelPool
from ..._values.config import is_seconds
from ..._values.stats import PoolStats
from .._pool_set import checked, stats_if_usable
from ._document import (
    PoolDocument,
    PoolsDocument,
    document_of_config,
    document_of_event,
    document_of_process,
    document_of_samples,
    document_of_stats,
    document_of_waits,
)
from ._history import HistoryListener, PoolHistory

_MODULES = ("page", "card", "charts", "connections", "elements", "events", "text")

_FILES = (
    ("/", "page.html", "text/html"),
    ("/page.css", "page.css", "text/css"),
    *((f"/{name}.js", f"{name}.js", "text/javascript") for name in _MODULES),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class InspectedPool:
    """A pool, held weakly, and its history."""

    def __init__(self, number: int, pool: PoolBase, pool_ref: weakref.ref[PoolBase], history: PoolHistory) -> None:
        """Records the pool's events in `history` from now on."""
        self.id = number
        self.pool = pool_ref
        self._name = pool.name
        self._kind = "asyncio" if isinstance(pool, grpc.aio.Channel) else "threads"
        self._history = history
        pool.add_listener(HistoryListener(history))

    def observed(self) -> PoolBase | None:
        """The pool; that of a handle may be found at its first use."""
        pool = self.pool()
        return None if pool is None else pool._observed

    def sample(self) -> PoolStats | None:
        """Returns the pool's snapshot, and adds it to the history if a sample is due; `None` if the pool has none."""
        pool = self.pool()
        if pool is None:
            return None
        known = self._history.known()
        stats = stats_if_usable(pool)
        if stats is not None:
            self._history.sample(stats, known)
        return stats

    def document(self) -> PoolDocument | None:
        """Returns the pool as a JSON object; `None` if it has been garbage collected."""
        stats = self.sample()
        pool = self.pool()
        if pool is None:
            return None
        state = "void" if stats is None else "closed" if pool.closed else "open"
        return {
            "id": self.id,
            "name": self._name,
            "kind": self._kind,
            "state": state,
            "taken_at": stats.taken_at.timestamp() if stats is not None and stats.taken_at is not None else None,
            "down": state == "open" and stats is not None and self._history.is_down(stats),
            "config": document_of_config(pool.config),
            "stats": document_of_stats(stats, self._history) if stats is not None else None,
            "timeline": document_of_samples(self._history.samples()),
            "waits": document_of_waits(self._history.waits()),
            "events": [document_of_event(event) for event in self._history.events()],
        }


class Inspector:
    """A live page of pools, and the same data as JSON: an ASGI application to mount in your own."""

    def __init__(self, *pools: ChannelPool | aio.ChannelPool, every: float = 1.0, keep: float = 300.0) -> None:
        """Shows `pools`, as `watch` does; it holds them weakly, and samples and serves nothing yet.

        Args:
            pools: Sync pools, asyncio pools, or both.
            every: Seconds between two samples of the timeline. The page is refreshed as often, but at least two and
                at most four times a second.
            keep: Seconds that the timeline covers.

        Raises:
            TypeError: One of `pools` is not a pool.
            ValueError: `every` is not greater than 0, or `keep` is less than `every`.
        """
        if not is_seconds(every) or every == 0:
            raise ValueError(f"every = {every!r}: must be seconds, greater than 0")
        if not is_seconds(keep) or keep < every:
            raise ValueError(f"keep = {keep!r}: must be seconds, at least every ({every!r})")
        self._every = every
        self._keep = keep
        self._numbers = itertools.count(1)
        self._inspected: dict[int, InspectedPool] = {}
        files = [Route(path, partial(_file, name, media_type)) for path, name, media_type in _FILES]
        self._app = Starlette(routes=[*files, Route("/pools", self._pools)], lifespan=self.lifespan)
        for pool in pools:
            self.watch(pool)

    def watch(self, pool: ChannelPool | aio.ChannelPool) -> None:
        """Shows `pool`, too, until it is garbage collected. Does nothing if it is already shown.

        Raises:
            TypeError: `pool` is not a pool.
        """
        observed = checked(pool)._observed
        if any(inspected.observed() is observed for inspected in self._all()):
            return
        number = next(self._numbers)
        # The callback may run anywhere: it takes no lock, and does not hold the inspector.
        ref: weakref.ref[PoolBase] = weakref.ref(observed, partial(_forget, self._inspected, number))
        self._inspected[number] = InspectedPool(number, observed, ref, PoolHistory(self._every, self._keep))

    def document(self) -> PoolsDocument:
        """Returns the JSON object of ``pools``."""
        documents = (inspected.document() for inspected in self._all())
        return document_of_process(self._every, self._keep, [each for each in documents if each is not None])

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002 -- Starlette passes it
        """Samples every pool during the block; use it as the lifespan of the application that mounts the inspector.

        An inspector that is served on its own uses it by itself.
        """
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles an ASGI request."""
        await self._app(scope, receive, partial(_send_with_headers, send))

    def _all(self) -> Iterator[InspectedPool]:
        """Each pool once: several may turn out to be handles on one."""
        found: dict[PoolBase | None, InspectedPool] = {}
        # A copy: any thread may add and remove pools.
        for inspected in list(self._inspected.values()):
            pool = inspected.observed()
            found.setdefault(None if pool is None else pool._counted, inspected)
        return iter(found.values())

    async def _sample(self) -> None:
        while True:
            for inspected in self._all():
                inspected.sample()
            await asyncio.sleep(self._every)

    async def _pools(self, _request: Request) -> Response:
        # ASCII with escapes: a name may contain characters that UTF-8 cannot encode.
        return Response(json.dumps(self.document(), separators=(",", ":")), media_type="application/json")


def _forget(inspected: dict[int, InspectedPool], number: int, _ref: object) -> None:
    inspected.pop(number, None)


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


async def _file(name: str, media_type: str, _request: Request) -> Response:
    return Response(_content(name), media_type=media_type)


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
    await send(message)
