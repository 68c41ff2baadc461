"""A process's fds, threads, objects and complaints, to check that a pool leaves nothing behind."""

from __future__ import annotations

import dataclasses
import gc
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import psutil

from soak.wishes import BrokenError

# Seconds in which closed things disappear: the system and gRPC's own threads take a moment.
_PATIENCE = 5.0
_OURS = ("grpcpool.", "grpc.")
# Kept by modules and interpreters, with or without a pool: settings, and what gRPC builds at its first use.
_OF_NO_POOL = ("grpc._cython", "grpc.StatusCode", "grpcpool._values.config", "grpcpool.testing")


@dataclasses.dataclass(frozen=True, slots=True)
class Remains:
    """Fds, threads and objects at one moment."""

    fds: int
    threads: frozenset[str]
    objects: Counter[str]

    @classmethod
    def now(cls) -> Self:
        """Those of this process. Counts the objects whose class is gRPC's or the pool's."""
        gc.collect()
        kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
        return cls(
            fds=psutil.Process().num_fds(),
            threads=frozenset(thread.name for thread in threading.enumerate()),
            objects=Counter({kind: number for kind, number in kinds.items() if kind.startswith(_OURS)}),
        )

    def beyond(self, before: Remains) -> list[str]:
        """What there is more of than in `before`, in words."""
        left = [f"thread left: {name}" for name in sorted(self.threads - before.threads)]
        if self.fds > before.fds:
            left.append(f"{self.fds - before.fds} fds left of {self.fds}")
        more = self.objects - before.objects
        return left + [f"{number} objects left: {kind}" for kind, number in sorted(more.items())]


def left_over(before: Remains) -> list[str]:
    """What there is more of than in `before`, after some seconds."""
    deadline = time.monotonic() + _PATIENCE
    while (left := Remains.now().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def memory() -> float:
    """This process's memory, in MiB."""
    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident / 2**20


class Complaints(logging.Handler):
    """Uncaught errors, and what is logged as an error: there should be none."""

    def __init__(self) -> None:
        """Collects from now on."""
        super().__init__(logging.ERROR)
        self.heard: list[str] = []
        logging.getLogger().addHandler(self)
        threading.excepthook = lambda args: self._hear("a thread died", args.exc_value)
        sys.unraisablehook = lambda args: self._hear(f"{args.err_msg or 'ignored'}: {args.object!r}", args.exc_value)

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a log record."""
        error = record.exc_info[1] if record.exc_info else None
        # gRPC logs what callers' own code raises.
        if not isinstance(error, BrokenError):
            self._hear(f"{record.name}: {record.getMessage()}", error)

    def uncaught(self, loop: object, context: dict[str, Any]) -> None:
        """Takes an uncaught error, as an event loop's exception handler."""
        self._hear(str(context.get("message")), context.get("exception"))

    def _hear(self, what: str, error: BaseException | None) -> None:
        said = "".join(traceback.format_exception(error)) if error is not None else ""
        self.heard.append(f"{what}\n{said}".rstrip())


def stacks() -> str:
    """The stack of every thread."""
    frames: dict[int, Any] = sys._current_frames()
    named: Callable[[int], str] = {thread.ident: thread.name for thread in threading.enumerate()}.get  # type: ignore[assignment]
    return "\n".join(f"{named(ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames.items())
