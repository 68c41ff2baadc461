"""Whether a call's outcome is explained by what was done: by one of the rules below, and by nothing else.

In particular, no call may fail because connections were replaced, drained, resized, discarded or sent GOAWAY, and none
may end long after its deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import grpc

from grpcpool._grpc.status import says_refused
from soak.book import LATE, Call
from soak.journal import Kind, Trouble

# Limits in seconds, for a busy machine.
_EARLY = 0.05
_NOTICED = 0.3
"""After a kill gRPC notices it within this time."""
_ENDED = 2.0
"""After a kill the calls that were open end within this time."""
_RECOVERED = 1.0
"""After a trouble everything is as before within this time."""
_ENOUGH = 2.0
"""A call with this much time without trouble must succeed."""
_FEW = 5

# gRPC's own words, also on plain channels (measured on 1.85.1): those of most of asyncio's calls that are writing when
# their connection is lost or their server refuses them; and those of every tenth call whose time runs out on a
# connection that got GOAWAY, because the server then closes it.
_WRITING = "Internal error from Core"
_GOING_AWAY = "GOAWAY received"


class Weather:
    """The troubles, and when they were."""

    def __init__(self, troubles: Sequence[Trouble], servers: int, *, refusing: bool) -> None:
        """`servers` is their number; one may be `refusing` calls at its limit of streams."""
        self._troubles = troubles
        self._servers = servers
        self.refusing = refusing

    def kill_of(self, call: Call) -> Trouble | None:
        """The kill that may have made a call fail; of several, the last."""
        kills = [
            trouble
            for trouble in self._troubles
            if trouble.kind is Kind.KILLED
            and call.chosen <= trouble.certain + _NOTICED
            and trouble.began <= call.ended <= trouble.certain + _ENDED
        ]
        return kills[-1] if kills else None

    def was_nothing_up(self, began: float, ended: float) -> bool:
        """Whether at some moment of a time, or just before it, no server was up, and at least one was killed."""
        began -= _RECOVERED
        moments = [began, *(trouble.began for trouble in self._troubles if began <= trouble.began <= ended)]
        return any(self._is_nothing_up(moment) for moment in moments)

    def _is_nothing_up(self, moment: float) -> bool:
        ill = {
            trouble.server: trouble.kind
            for trouble in self._troubles
            if trouble.kind is not Kind.NARROW and trouble.began <= moment <= trouble.ended
        }
        return len(ill) == self._servers and Kind.KILLED in ill.values()

    def calm(self, began: float, ended: float, *, whole: bool) -> float:
        """The seconds of a time without trouble; a narrow pool is trouble for an acquire of a `whole` connection."""
        spans = sorted(
            (trouble.began, trouble.ended + _RECOVERED)
            for trouble in self._troubles
            if whole or trouble.kind is not Kind.NARROW
        )
        calm, reached = 0.0, began
        for low, high in spans:
            calm += max(0.0, min(low, ended) - reached)
            reached = max(reached, min(high, ended))
        return calm + max(0.0, ended - reached)


# --- the rules ----------------------------------------------------------------------------------------------------


def _as_meant(call: Call, weather: Weather) -> bool:
    return call.outcome in call.means


def _cancelled(call: Call, weather: Weather) -> bool:
    return call.cancelled_by_chaos and call.outcome == "CANCELLED"


def _refused(call: Call, weather: Weather) -> bool:
    """Calls with one request over the pool are sent again: their callers see no refusal."""
    said = says_refused(grpc.StatusCode.UNAVAILABLE, call.details) or _failed_writing(call)
    return call.sent_once and weather.refusing and said and _is_down(call)


def _out_of_time_on_goaway(call: Call, weather: Weather) -> bool:
    return call.outcome == "UNAVAILABLE" and _GOING_AWAY in call.details and call.ended >= call.due - _EARLY


def _no_server_was_well(call: Call, weather: Weather) -> bool:
    """Calls with `wait_for_ready` wait this out."""
    return _is_down(call) and not call.waits and weather.was_nothing_up(call.began, call.ended)


def _open_at_a_kill(call: Call, weather: Weather) -> bool:
    """Also calls whose connection was chosen before gRPC could notice."""
    return _is_down(call) and weather.kill_of(call) is not None


def _too_little_time(call: Call, weather: Weather) -> bool:
    """The call timed out, and not enough of its time was without trouble."""
    if call.outcome not in ("DEADLINE_EXCEEDED", "PoolTimeoutError", "RESOURCE_EXHAUSTED"):
        return False
    return call.ended >= call.due - _EARLY and weather.calm(call.began, call.ended, whole=call.whole) < _ENOUGH


def _is_down(call: Call) -> bool:
    return call.outcome == "UNAVAILABLE" or _failed_writing(call)


def _failed_writing(call: Call) -> bool:
    return (call.outcome, call.details, call.sent_once) == ("INTERNAL", _WRITING, True)


RULES: Final[dict[str, Callable[[Call, Weather], bool]]] = {
    "as its caller meant it": _as_meant,
    "cancelled by chaos": _cancelled,
    "refused by its server, and not to be sent again": _refused,
    "out of time on a connection with GOAWAY": _out_of_time_on_goaway,
    "no server was well": _no_server_was_well,
    "open at a kill": _open_at_a_kill,
    "too little time without trouble": _too_little_time,
}
"""In their order; the first that holds is the explanation."""


def explanation_of(call: Call, weather: Weather) -> str | None:
    """Why a call ended as it did; `None` if nothing explains it."""
    if call.ended > call.due + LATE:
        return None
    return next((why for why, holds in RULES.items() if holds(call, weather)), None)


def too_many_of_a_kill(calls: Iterable[Call], weather: Weather) -> list[str]:
    """The kills after which more calls began and failed than were open at the kill.

    A caller that has lost a call begins another, and may meet another connection whose loss gRPC has not noticed yet.
    That happens once to each; a pool that puts calls on failing connections has many more.
    """
    failed: Counter[Trouble] = Counter()
    for call in calls:
        kill = weather.kill_of(call) if explanation_of(call, weather) == "open at a kill" else None
        if kill is not None and call.began > kill.certain:
            failed[kill] += 1
    return [
        f"{number} calls begun after a kill failed, but only {kill.running} were open at it: {kill}"
        for kill, number in failed.items()
        if number > max(kill.running, _FEW)
    ]
