"""An event loop on a thread of its own, on which calls are made with `grpc.aio`."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from .recorder import CallRecorder
from .result import Plan

AioCall = Callable[[], Awaitable[object]]
"""Makes one complete call."""

MakeCalls = Callable[[AioCall], Coroutine[Any, Any, None]]

# How much longer than its timeout a call may take to end.
_GRACE: Final = 2.0


class LoopThread:
    """Makes the calls of one measurement. The caller's thread shows progress meanwhile, and may interrupt it."""

    def __init__(self, create: Callable[[], Any], plan: Plan, recorder: CallRecorder, make_calls: MakeCalls) -> None:
        """Starts nothing yet.

        Args:
            create: Creates the channel, on the loop.
            plan: What to call, and for how long.
            recorder: The recorder, which is stopped at the end.
            make_calls: Makes all the calls, and returns when the last has ended.
        """
        self._create, self._plan, self._recorder, self._make_calls = create, plan, recorder, make_calls
        self._thread = threading.Thread(target=self._run, daemon=True)
        # epoll and its like wait in whole milliseconds, which calls would then be late by; select does not.
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    def start(self) -> None:
        """Starts to make the calls."""
        self._thread.start()

    def is_done(self) -> bool:
        """Whether all calls have ended."""
        return not self._thread.is_alive()

    def end(self, grace: float) -> None:
        """Waits `grace` seconds for the calls to end, then cancels them.

        Raises:
            Exception: The one that ended the calls early, such as an invalid target.
        """
        self._recorder.stop()
        if self._thread.ident is None:
            self._loop.close()
            return
        self._thread.join(grace)
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(_GRACE)
        if self._error is not None:
            raise self._error

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner, contextlib.suppress(asyncio.CancelledError):
                runner.run(self._make_all())
        except Exception as error:  # noqa: BLE001 -- raised again by `end`
            self._error = error
        finally:
            # So that the caller's thread does not wait for a measurement that has not begun.
            self._recorder.stop()

    async def _make_all(self) -> None:
        self._task = asyncio.current_task()
        plan = self._plan
        channel = self._create()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.warmup + plan.duration + plan.timeout + _GRACE):
                    await self._make_calls(_call(channel, plan))
        finally:
            await channel.close()


def _call(channel: Any, plan: Plan) -> AioCall:
    """Returns a function that makes one complete call. Responses are received, but not parsed."""
    method = plan.method
    arguments: dict[str, Any] = {"timeout": plan.timeout, "metadata": plan.metadata}
    if not method.streams:
        unary: Any = channel.unary_unary(method.path)
        return lambda: unary(method.request, **arguments)
    stream: Any = channel.unary_stream(method.path)

    async def read_all() -> None:
        async for _ in stream(method.request, **arguments):
            pass

    return read_all
