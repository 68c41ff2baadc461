"""The inspector: an ASGI application over pools that others hold.

Each look at it is a sample of its own, so that who looks needs no background work; only the application's lifespan,
if it is given to it, has a task. Whatever it answers, it answers with headers that forbid the page everything but its
own files.
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
from .._watched import figures_of
from ._book import Book, Ear
from ._document import (
    PoolDocument,
    PoolsDocument,
    document_of_config,
    document_of_event,
    document_of_process,
    document_of_samples,
    document_of_stats,
)

_FILES = (
    ("/", "page.html", "text/html"),
    ("/page.css", "page.css", "text/css"),
    ("/page.js", "page.js", "text/javascript"),
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


class Watched:
    """A pool, held weakly, and what is remembered of it."""

    def __init__(self, number: int, pool: PoolBase, pool_ref: weakref.ref[PoolBase], book: Book) -> None:
        """Has the pool tell `book` what happens."""
        self.id = number
        self.pool = pool_ref
        self._name = pool.name
        self._kind = "asyncio" if isinstance(pool, grpc.aio.Channel) else "threads"
        self._book = book
        pool.add_listener(Ear(book))

    def sample(self) -> PoolStats | None:
        """The pool's figures, which are remembered unless they were just now; `None` if it has none."""
        pool = self.pool()
        if pool is None:
            return None
        stats = figures_of(pool)
        if stats is not None:
            self._book.sample(stats)
        return stats

    def document(self) -> PoolDocument | None:
        """The pool, as JSON has it; `None` if it is gone."""
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
            "config": document_of_config(pool.config),
            "stats": document_of_stats(stats, self._book) if stats is not None else None,
            "timeline": document_of_samples(self._book.samples()),
            "events": [document_of_event(noted) for noted in self._book.events()],
        }


class Inspector:
    """A live page of pools, and the same as JSON: an ASGI application to mount in one's own."""

    def __init__(self, *pools: ChannelPool | aio.ChannelPool, every: float = 1.0, keep: float = 300.0) -> None:
        """Watches `pools`, as `watch` does; nothing is held, sampled or served yet.

        Args:
            pools: Pools of threads, of asyncio, or of both.
            every: Seconds between two samples of the timeline, and two looks of the page.
            keep: Seconds that the timeline reaches back.

        Raises:
            TypeError: One of `pools` is not a pool.
            ValueError: `every` is not more than 0, or `keep` is less.
        """
        if not is_seconds(every) or every == 0:
            raise ValueError(f"every = {every!r}: must be seconds, more than 0")
        if not is_seconds(keep) or keep < every:
            raise ValueError(f"keep = {keep!r}: must be seconds, at least every, which is {every!r}")
        self._every = every
        self._keep = keep
        self._numbers = itertools.count(1)
        self._watched: dict[int, Watched] = {}
        files = [Route(path, partial(_file, name, media_type)) for path, name, media_type in _FILES]
        self._app = Starlette(routes=[*files, Route("/pools", self._pools)], lifespan=self.lifespan)
        for pool in pools:
            self.watch(pool)

    def watch(self, pool: ChannelPool | aio.ChannelPool) -> None:
        """Shows `pool`, too, from now on and for as long as somebody else holds it. One that is shown already stays.

        Raises:
            TypeError: It is not a pool.
        """
        if not isinstance(pool, PoolBase):
            raise TypeError(f"pool must be a grpcpool.ChannelPool or a grpcpool.aio.ChannelPool, not {pool!r}")
        if any(watched.pool() is pool for watched in self._all()):
            return
        number = next(self._numbers)
        # The callback may run anywhere: it takes no lock, and does not hold the inspector.
        ref: weakref.ref[PoolBase] = weakref.ref(pool, partial(_forget, self._watched, number))
        self._watched[number] = Watched(number, pool, ref, Book(self._every, self._keep))

    def document(self) -> PoolsDocument:
        """What ``pools`` answers."""
        documents = (watched.document() for watched in self._all())
        return document_of_process(self._every, self._keep, [each for each in documents if each is not None])

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002 -- Starlette gives it
        """Samples every pool while the block lasts: the lifespan of the application that mounts this one.

        An inspector that is the whole application has it by itself.
        """
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI has it."""
        await self._app(scope, receive, partial(_send_with_headers, send))

    def _all(self) -> Iterator[Watched]:
        # A copy, which is made at once: pools come and go on any thread.
        return iter(list(self._watched.values()))

    async def _sample(self) -> None:
        while True:
            for watched in self._all():
                watched.sample()
            await asyncio.sleep(self._every)

    async def _pools(self, _request: Request) -> Response:
        # With escapes for all that is not ASCII: a name may hold what UTF-8 cannot.
        return Response(json.dumps(self.document(), separators=(",", ":")), media_type="application/json")


def _forget(watched: dict[int, Watched], number: int, _ref: object) -> None:
    watched.pop(number, None)


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


async def _file(name: str, media_type: str, _request: Request) -> Response:
    return Response(_content(name), media_type=media_type)


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
    await send(message)
