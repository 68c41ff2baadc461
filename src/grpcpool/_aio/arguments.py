"""What takes the arguments of a call, and runs it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from .._shared.arguments import Arguments
from .._shared.methods import Method
from .driver import AioDriver


class Caller(Protocol):
    """Runs the calls of one method."""

    def origin(self) -> tuple[Any, Method]:
        """The channel that it was made by, and the method."""

    @property
    def driver(self) -> AioDriver:
        """The driver of its pool."""

    def call(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call and returns it; `chain`: what it goes on from, if that may go on, see `begin_chain`."""

    def begin_chain(self) -> bool:
        """An intercepted call begins; returns whether it may go on even if it is closed meanwhile."""

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors of a call that may go on."""

    def end_chain(self) -> None:
        """The interceptors of a call are done."""

    def of_other_method(self, name: str) -> Caller:
        """The caller for a method with another name, if an interceptor has changed it."""
