"""What a story observes of a pool, as text: the events that listeners get, and the answers that callers get."""

from __future__ import annotations

import threading

import grpc

from grpcpool import Listener, PoolError
from grpcpool._values.listener import HOOKS
from grpcpool.events import (
    AddressesChanged,
    Avoided,
    Closed,
    Draining,
    Granted,
    Leaked,
    LookUpFailed,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    Recovered,
    RefusedStream,
    Rejected,
    TimedOut,
)


def event_text(event: PoolEvent) -> str:  # noqa: C901 -- one case for each event
    """The event as the stories write it: without anything random."""
    word = HOOKS[type(event)]
    match event:
        case Opening(channel=number, replaces=replaced):
            text = f"{word} {number}" if replaced is None else f"{word} {number} to replace {replaced}"
        case (
            Opened(channel=number)
            | OpenFailed(channel=number)
            | Lost(channel=number)
            | Recovered(channel=number)
            | Avoided(channel=number)
        ):
            text = f"{word} {number}"
        case Closed(channel=number, reason=reason, cancelled=cancelled):
            text = f"{word} {number}: {reason}" + (f", {cancelled} cancelled" if cancelled else "")
        case Draining(channel=number, reason=reason, in_flight=in_flight):
            text = f"{word} {number}: {reason}, {in_flight} in flight"
        case Granted(channel=number, waited=waited):
            text = f"{word} {number} after {waited:g} s"
        case TimedOut(waited=waited):
            text = f"{word} after {waited:g} s"
        case Rejected(waiting=waiting):
            text = f"{word}: {waiting} waiting"
        case RefusedStream(channel=number, limit=limit):
            text = f"{word} {number}: limit {limit}"
        case AddressesChanged(addresses=all_of_them, new=new, gone=gone):
            text = f"{word}: {len(all_of_them)}, {len(new)} new, {len(gone)} gone"
        case LookUpFailed():
            text = word
        case Leaked(channel=number, held=held):
            text = f"{word} {number} after {held:g} s"
        case _:
            raise AssertionError(f"no words for {event!r}")
    return text


def error_text(error: BaseException) -> str:
    """The error as the stories write it: its class or status code, and what caused it."""
    if isinstance(error, grpc.RpcError):
        return status_text(error.code(), error.__cause__)
    if isinstance(error, PoolError) and error.__cause__ is not None:
        return f"{type(error).__name__} after a connect error"
    return type(error).__name__


def status_text(code: grpc.StatusCode, cause: BaseException | None = None) -> str:
    """The end of a call as the stories write it."""
    if isinstance(cause, PoolError):
        return f"{code.name} by {error_text(cause)}"
    return "cancelled" if code is grpc.StatusCode.CANCELLED else code.name


class Log(Listener):
    """Records events and answers as text, from any thread."""

    def __init__(self) -> None:
        """Starts empty."""
        self._guard = threading.Lock()
        self._events: list[str] = []
        self._answers: list[tuple[str, int | str]] = []

    def record(self, event: PoolEvent) -> None:
        """Records `event`, which listeners were sent."""
        with self._guard:
            self._events.append(event_text(event))

    def answer(self, caller: str, what: int | str) -> None:
        """Records that `caller` got the answer `what`."""
        with self._guard:
            self._answers.append((caller, what))

    def recorded(self) -> tuple[list[str], list[tuple[str, int | str]]]:
        """The events and answers since the last `clear`, each sorted."""
        with self._guard:
            return sorted(self._events), sorted(self._answers, key=str)

    def clear(self) -> None:
        """Forgets everything recorded so far."""
        with self._guard:
            self._events.clear()
            self._answers.clear()


for _hook in HOOKS.values():
    setattr(Log, _hook, Log.record)
