"""Looks up the addresses of a pool's target, without blocking the loop.

The resolver, and a plain function of the user's, run on a thread of their own, as they do without a loop. In the loop's
executor one that hangs would take a thread from the application, and `asyncio.run` would wait for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from .._shared.channel_source import ChannelSource
from .._shared.destination import checked, look_up
from .._shared.thread_start import new_thread, start


async def look_up_now(source: ChannelSource, endpoint: int, thread: str) -> list[str]:
    """The addresses of one of the pool's targets, at least one; `thread` is the name of the thread.

    Raises:
        BaseException: Whatever the user's callable, or the resolver, raised.
    """
    if (known := source.known(endpoint)) is not None:
        return known
    if source.addresses is None:
        destination = source.destinations[endpoint]
        return checked(await _on_thread(thread, partial(look_up, destination.host or "", destination.port)))
    if inspect.iscoroutinefunction(source.addresses):
        return checked(await source.addresses())
    found = await _on_thread(thread, source.addresses)
    return checked(await found if inspect.isawaitable(found) else found)


async def _on_thread(name: str, work: Callable[[], Any]) -> Any:
    """Does `work` on a daemon thread with this name, which nothing waits for when this is cancelled.

    Raises:
        BaseException: Whatever `work` raised.
        RuntimeError: No thread can be started.
    """
    loop = asyncio.get_running_loop()
    # Not with `set_exception`, which does not take a `StopIteration`.
    answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def end(found: Any, error: BaseException | None) -> None:
        # A closed loop has nothing more to do.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, answer, found, error)

    def run() -> None:
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001 -- foreign code may raise anything
            end(None, error)
        else:
            end(found, None)

    start(new_thread(run, name))
    found, error = await answer
    if error is not None:
        raise error
    return found


def _answer(answer: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if not answer.done():
        answer.set_result((found, error))
    elif inspect.iscoroutine(found):
        # Otherwise Python warns that it was never awaited.
        found.close()
