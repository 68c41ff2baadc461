"""What runs a chain of asyncio interceptors: gRPC's own classes where they are as known, else `own_chain`'s.

There is no public way to run a chain. gRPC's classes have had the same parameters since 1.60; they are looked up when
the first call with interceptors is made.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

from .missing import warn_of_missing
from .own_chain import OWN_CHAINS, end_at_home

_MODULE = "grpc.aio._interceptor"
_CLASSES = {
    "unary_unary": "InterceptedUnaryUnaryCall",
    "unary_stream": "InterceptedUnaryStreamCall",
    "stream_unary": "InterceptedStreamUnaryCall",
    "stream_stream": "InterceptedStreamStreamCall",
}
_PROXY = "_proxy_writes_as_request_iterator"
_WRITE = "_write_to_iterator_queue_interruptible"
# What methods of gRPC's must use for ours to fit in: what `_WritesWithoutHolding` replaces, and what reads the pool's
# calls.
_USED = {
    _PROXY: ("_interceptors_task", "_write_to_iterator_queue", "_FINISH_ITERATOR_SENTINEL"),
    _WRITE: ("_status_code_task",),
    "write": ("_done_writing_flag", _WRITE),
}
_PARAMETERS = (
    "interceptors",
    "request",
    "timeout",
    "metadata",
    "credentials",
    "wait_for_ready",
    "channel",
    "method",
    "request_serializer",
    "response_deserializer",
    "loop",
)


class _EndsAtHome:
    """An intercepted call that is cancelled on its loop when it is dropped, whatever thread collects it.

    One with one response goes on: what becomes of the call that the interceptors return is decided there.
    """

    ends_unread: bool

    _loop: asyncio.AbstractEventLoop
    _interceptors_task: asyncio.Task[Any]
    cancel: Callable[[], bool]

    @property
    def chain(self) -> asyncio.Task[Any]:
        """The task that runs the interceptors."""
        return self._interceptors_task

    def __del__(self) -> None:
        # Without the task the constructor has failed.
        if not self.ends_unread and "_interceptors_task" in self.__dict__:
            end_at_home(self, self._loop)


class _WritesWithoutHolding:
    """Requests that are written to a call, for the chain to iterate.

    gRPC's own generator holds the call that it is for, which is then held by what iterates: a call that is dropped
    while it waits for a place would be kept for ever. So does gRPC's task that waits for the end of the call to which
    they are written, whose callbacks hold the intercepted call.
    """

    _loop: asyncio.AbstractEventLoop
    _write_to_iterator_queue: asyncio.Queue[Any]
    _FINISH_ITERATOR_SENTINEL: object
    _status_code_task: asyncio.Future[None] | None
    _when_complete: Callable[[], None]

    def _proxy_writes_as_request_iterator(self) -> AsyncIterator[Any]:
        return _written(weakref.ref(self), self._write_to_iterator_queue, self._FINISH_ITERATOR_SENTINEL)

    async def _write_to_iterator_queue_interruptible(self, request: Any, call: Any) -> None:
        if self._status_code_task is None:
            self._status_code_task = end = self._loop.create_future()
            try:
                call.add_done_callback(functools.partial(_note, end))
            except Exception:  # noqa: BLE001 -- which error it is depends on the answer
                # An interceptor has answered itself: nothing reads what is written.
                _note(end, None)
        grpcs: Any = super()
        await grpcs._write_to_iterator_queue_interruptible(request, call)

    async def done_writing(self) -> None:
        grpcs: Any = super()
        await grpcs.done_writing()
        self._when_complete()


def _note(end: asyncio.Future[None], _: object) -> None:
    if not end.done():
        end.set_result(None)


async def _written(call: Callable[[], Any], queue: asyncio.Queue[Any], finish: object) -> AsyncIterator[Any]:
    if not hasattr(call(), "_interceptors_task"):
        # Where tasks are eager, the chain runs, and may iterate this, within the constructor of the call.
        await asyncio.sleep(0)
    task = getattr(call(), "_interceptors_task", None)
    if task is None:
        return
    await task
    del task
    while (request := await queue.get()) is not finish:
        yield request


def chain_of(kind: str) -> Any:
    """The class that runs the chain of a call of `kind`, the name of the maker of its multicallable."""
    return _chains()[kind]


@functools.cache
def _chains() -> dict[str, Any]:
    missing, module = _missing()
    if missing is not None:
        warn_of_missing(missing)
        return dict(OWN_CHAINS)
    ours: dict[str, tuple[type, ...]] = dict.fromkeys(_CLASSES, (_EndsAtHome,))
    for kind in ("stream_unary", "stream_stream"):
        ours[kind] = (_EndsAtHome, _WritesWithoutHolding)
    return {
        kind: type(
            name,
            (*ours[kind], getattr(module, name)),
            {"__module__": __name__, "ends_unread": kind.endswith("unary")},
        )
        for kind, name in _CLASSES.items()
    }


def _missing() -> tuple[str | None, Any]:
    """The name that gRPC lacks, if any, and its module of interceptors."""
    try:
        module: Any = importlib.import_module(_MODULE)
        classes = [getattr(module, name) for name in _CLASSES.values()]
        known = all(map(_takes_what_is_known, classes))
    except (ImportError, AttributeError, TypeError, ValueError):
        return _MODULE, None
    if not known:
        return _MODULE, module
    return next((name for kind in classes[2:] if (name := _missing_for_writes(kind)) is not None), None), module


def _takes_what_is_known(kind: type) -> bool:
    parameters = list(inspect.signature(kind).parameters.values())
    given, more = parameters[: len(_PARAMETERS)], parameters[len(_PARAMETERS) :]
    names = tuple(parameter.name.replace("request_iterator", "request") for parameter in given)
    return names == _PARAMETERS and all(parameter.default is not parameter.empty for parameter in more)


def _missing_for_writes(kind: Any) -> str | None:
    """What is not as known in how this class of calls with a stream of requests takes what is written."""
    for method, used in _USED.items():
        code = getattr(getattr(kind, method, None), "__code__", None)
        if code is None:
            return method
        for name in used:
            if name not in code.co_names:
                return name
    return None
