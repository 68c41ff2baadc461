"""The responses of a call of a pool or lease, as they are iterated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Self

from .._grpc.cancel_messages import keeping_message

NOWHERE = SimpleNamespace(heard=0)
"""Stands for the slot of a call that is not on one any more."""


class Responses(AsyncIterator[Any]):
    """The responses of a call. Holds the call for as long as it is iterated.

    What it has come to is known to the call as well: another one, made later, goes on there.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._iterator: AsyncIterator[Any] | None = call._iterator
        # Whether the first response is being read.
        self._reads_first = False
        # Whose connection delivers the responses.
        self._slot: Any = NOWHERE if self._iterator is None else call._delivers()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        # A call that has responded is not sent again: from here on the native iterator serves.
        if self._iterator is None:
            return self._first_or_next()
        # It has delivered the one before.
        self._slot.heard += 1
        return self._iterator.__anext__()

    async def _first_or_next(self) -> Any:
        if self._iterator is not None:
            # It has been read since this was made.
            return await anext(self)
        if self._reads_first:
            raise RuntimeError("anext(): asynchronous generator is already running")
        self._reads_first = True
        try:
            return await self._first()
        finally:
            self._reads_first = False

    async def _first(self) -> Any:
        call = self._call
        while True:
            try:
                native = await call._begun_or_cancelled()
            except asyncio.CancelledError:
                # As gRPC's generator, it ends with what it raises.
                self._iterator = call._iterator = _closed()
                raise
            iterator = native.__aiter__()
            try:
                # Until the request is sent, a cancellation ends the sending, and its message is lost.
                message = await keeping_message(iterator.__anext__())
            except BaseException as error:
                if getattr(iterator, "ag_running", False):
                    # Another task iterates the call: this error ends nothing.
                    raise
                if not call._is_sent_again(native, error):
                    self._iterator = call._iterator = iterator
                    raise
            else:
                self._iterator = call._iterator = iterator
                self._slot = call._has_heard()
                return message

    async def aclose(self) -> None:
        """As of the asynchronous generator that gRPC returns."""
        if self._iterator is None:
            if self._reads_first:
                raise RuntimeError("aclose(): asynchronous generator is already running")
            self._iterator = self._call._iterator = _closed()
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


async def _closed() -> AsyncIterator[Any]:
    for response in tuple[Any, ...]():
        yield response
