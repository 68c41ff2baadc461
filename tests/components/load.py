"""Threads that call without a pause while something happens to the servers, and the outcomes of their calls."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import grpc

from support.waiting import LONG, background, eventually


class Load:
    """Begins with the ``with`` block and ends with it."""

    def __init__(self, callers: int, call: Callable[[], bytes]) -> None:
        """This many threads; each makes one call after another."""
        self._callers = callers
        self._call = call
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._answers: Counter[bytes] = Counter()
        self._threads: list[Future[None]] = []
        self.errors: list[grpc.RpcError] = []

    def answers_to_come(self, number: int = 100) -> Counter[bytes]:
        """Waits for this many further answers; returns how often each occurred."""
        with self._guard:
            self._answers.clear()
        eventually(lambda: self._answers.total() >= number)
        return self._answers.copy()

    def wait_for_answers_of(self, names: set[bytes]) -> None:
        """Waits until the answers are exactly these."""
        eventually(lambda: set(self.answers_to_come()) == names)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._call()
            except grpc.RpcError as error:
                self.errors.append(error)
            else:
                with self._guard:
                    self._answers[answer] += 1

    def __enter__(self) -> Self:
        """Begins."""
        self._threads = [background(self._run) for _ in range(self._callers)]
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends once the running calls have ended; errors other than failed calls are raised."""
        self._over.set()
        for thread in self._threads:
            thread.result(2 * LONG)
