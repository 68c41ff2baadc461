"""Whether what a call came to is explained by what was done: by one of the rules below, and by nothing else.

In particular no call may fail because connections were replaced, drained, resized, discarded or told to go away, and
none may end long after its deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import grpc

from grpcpool._grpc.status import is_refused
from soak.book import LATE, Call
from soak.journal import Kind, Trouble

# Bounds, in seconds, for a machine that others keep busy.
_EARLY = 0.05
_NOTICED = 0.3
"""After a kill gRPC knows of it within this."""
_TOLD = 2.0
"""After a kill those that were open are told within this."""
_RECOVERED = 1.0
"""After a trouble everything is as before within this."""
_ENOUGH = 2.0
"""Whoever has this much time free of trouble must be served."""
_FEW = 5

# gRPC's own words, which plain channels have for it, too (measured on 1.85.1): what most of asyncio's calls say that
# are writing when their connection goes or their server refuses them; and what every tenth call says that runs out of
# time on a connection that was told to go away, for then the server closes it.
_WRITING = "Internal error from Core"
_TOLD_TO_GO = "GOAWAY received"


class Weather:
    """What was the matter, and when."""

    def __init__(self, troubles: Sequence[Trouble], servers: int, *, refusing: bool) -> None:
        """With so many servers, of which one may be `refusing` calls for its limit of streams."""
        self._troubles = troubles
        self._servers = servers
        self.refusing = refusing

    def kill_of(self, call: Call) -> Trouble | None:
        """The kill that a call may have failed of; of several, the last."""
        kills = [
            trouble
            for trouble in self._troubles
            if trouble.kind is Kind.KILLED
            and call.began <= trouble.certain + _NOTICED
            and trouble.began <= call.ended <= trouble.certain + _TOLD
        ]
        return kills[-1] if kills else None

    def was_nothing_up(self, began: float, ended: float) -> bool:
        """Whether at some moment of a time, or just before it, no server was well, and one at least was gone."""
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
        """How many seconds of a time were free of trouble; to who wants a `whole` connection a narrow pool is one."""
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
    return call.told_to_end and call.outcome == "CANCELLED"


def _refused(call: Call, weather: Weather) -> bool:
    """Calls with one request over the pool are sent again: nobody sees that they were refused."""
    said = is_refused(grpc.StatusCode.UNAVAILABLE, call.details) or _failed_writing(call)
    return call.sent_once and weather.refusing and said and _is_down(call)


def _out_of_time_when_told_to_go(call: Call, weather: Weather) -> bool:
    return call.outcome == "UNAVAILABLE" and _TOLD_TO_GO in call.details and call.ended >= call.due - _EARLY


def _no_server_was_well(call: Call, weather: Weather) -> bool:
    """Who waits for ready waits this out."""
    return _is_down(call) and not call.waits and weather.was_nothing_up(call.began, call.ended)


def _open_at_a_kill(call: Call, weather: Weather) -> bool:
    """And those that were begun before gRPC could know of it."""
    return _is_down(call) and weather.kill_of(call) is not None


def _too_little_time(call: Call, weather: Weather) -> bool:
    """Who ran out of time had it, but not enough of it was free of trouble."""
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
    "out of time when it was told to go away": _out_of_time_when_told_to_go,
    "no server was well": _no_server_was_well,
    "open at a kill": _open_at_a_kill,
    "too little time without trouble": _too_little_time,
}
"""In turn; the first that holds is the explanation."""


def explanation_of(call: Call, weather: Weather) -> str | None:
    """Why a call came to what it did; `None` if nothing explains it."""
    if call.ended > call.due + LATE:
        return None
    return next((why for why, holds in RULES.items() if holds(call, weather)), None)


def too_many_of_a_kill(calls: Iterable[Call], weather: Weather) -> list[str]:
    """The kills of which more calls failed that were begun after them than were open at them.

    Who has lost a call begins another, and may come upon another connection of which gRPC does not know yet that it is
    gone. That is once for each; a pool that puts calls on connections that fail them has many more.
    """
    failed: Counter[Trouble] = Counter()
    for call in calls:
        kill = weather.kill_of(call) if explanation_of(call, weather) == "open at a kill" else None
        if kill is not None and call.began > kill.certain:
            failed[kill] += 1
    return [
        f"{number} calls that were begun after a kill, at which {kill.running} were open, failed of it: {kill}"
        for kill, number in failed.items()
        if number > max(kill.running, _FEW)
    ]
