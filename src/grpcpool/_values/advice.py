"""Judges the size of a pool from two snapshots: `advise`.

It uses Little's law: the average number in flight is the rate of arrivals times the average time in flight. So the
number of connections that a load needs is the number of calls in flight and waiting, divided by the target number of
calls on a connection.

The verdicts, in the order in which they are checked; the first that fits is returned:

===================== ==============================================================================================
no load               there were no calls or leases, and none waits
connections lost      connections that were in service are down
limited by streams    the server refused calls: its stream limit is below `max_streams`, or it sheds load
sick server           more than one in twenty calls failed as calls do on a sick server, and connections were up
limited by connecting no connection is up and none opens, or callers wait for connections below `max_size`
too small             callers wait although the pool has `max_size` connections and all places are taken
too large             almost no caller waited, and most of the connections are idle
not the bottleneck    almost no caller waited, and the size of the pool is right
===================== ==============================================================================================

Losses, failures and failed attempts to connect that do not decide the verdict are mentioned after it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator

from .config import target_of
from .stats import PoolStats

# Share of callers that may wait before the pool counts as a bottleneck.
_TOLERATED_SHARE = 0.01

# Share of calls that may fail as calls do on a sick server: a few run into their deadlines in any system.
_TOLERATED_FAILURES = 0.05


class Verdict(enum.StrEnum):
    """What limits a pool, in a few words."""

    NO_LOAD = "no load"
    CONNECTIONS_LOST = "connections lost"
    SICK_SERVER = "sick server"
    LIMITED_BY_CONNECTING = "limited by connecting"
    LIMITED_BY_STREAMS = "limited by streams"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    NOT_THE_BOTTLENECK = "not the bottleneck"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The result of `advise`, with its numbers. Its `str` is the complete advice.

    Attributes:
        verdict: The verdict on the pool's size.
        text: The observation, and what to do.
        seconds: Time between the snapshots; `None` if it is not known.
        rate: Leases and calls that got a place, per second.
        in_flight: Streams in flight (`PoolStats.in_flight`), as the mean of the two snapshots.
        in_queue: Leases and calls that waited, on average: by Little's law, their rate times their mean wait.
        waited: Share of the callers that waited, timed out or were rejected.
        failed: Failed calls (`PoolStats.failures`) as a share of the leases and calls.
        mean_wait: Mean wait, in seconds, of the callers that waited.
        held: Mean time, in seconds, for which a place was held: by Little's law, in flight divided by rate.
        needed: Connections that this load needs.
    """

    verdict: Verdict
    text: str
    seconds: float | None
    rate: float | None
    in_flight: float
    in_queue: float
    waited: float
    failed: float
    mean_wait: float
    held: float | None
    needed: int

    def __str__(self) -> str:
        """Returns the verdict and the text."""
        return f"{self.verdict}: {self.text}"


def advise(before: PoolStats, after: PoolStats) -> Advice:
    """Says what limits a pool: its size, the server, connecting, or nothing.

    Args:
        before: A snapshot of the pool (`stats()`).
        after: Another one, taken after some minutes of typical load: the advice is about the time between.

    Raises:
        TypeError: One of them is not a snapshot.
        ValueError: These are not two snapshots of one pool in this order.
    """
    for each in (before, after):
        if not isinstance(each, PoolStats):
            raise TypeError(f"advise() compares two snapshots: pass pool.stats(), not {each!r}")
    if after.acquired < before.acquired or after.opened < before.opened:
        raise ValueError("the snapshots must be of one pool, the earlier one first: the counters decreased")
    seen = _Observation(before, after)
    verdict, text = _judge(seen)
    return Advice(
        verdict=verdict,
        text=" ".join(filter(None, (text, *_trouble(seen, verdict), seen.littles_law()))),
        seconds=seen.seconds,
        rate=seen.rate,
        in_flight=seen.in_flight,
        in_queue=seen.in_queue,
        waited=seen.share,
        failed=seen.failed,
        mean_wait=seen.mean_wait,
        held=seen.held,
        needed=seen.needed,
    )


class _Observation:
    """The numbers of the time between two snapshots."""

    def __init__(self, before: PoolStats, after: PoolStats) -> None:
        self.after = after
        self.seconds = _seconds(before, after)
        self.acquired = after.acquired - before.acquired
        self.timeouts = after.timeouts - before.timeouts
        self.rejected = after.rejected - before.rejected
        self.refused_streams = after.refused_streams - before.refused_streams
        self.open_failures = after.open_failures - before.open_failures
        self.opened = after.opened - before.opened
        self.failures = after.failures - before.failures
        self.losses = after.losses - before.losses
        # Not connections that have never been up.
        self.lost = after.lost if self.losses or (before.lost and after.losses) else 0
        # Whether connections were closed because nothing needed them.
        self.rests = any(after.closed.get(why, 0) > before.closed.get(why, 0) for why in ("idle", "shrink"))
        # Calls on a lease may be more than leases.
        self.failed = self.failures / max(self.acquired, self.failures, 1)
        waited = after.waited - before.waited
        wait_seconds = after.wait_seconds - before.wait_seconds
        self.in_flight = (before.in_flight + after.in_flight) / 2
        self.peak = max(before.in_flight, after.in_flight)
        self.mean_wait = wait_seconds / waited if waited else 0.0
        failed = self.timeouts + self.rejected
        callers = self.acquired + failed + after.waiting
        self.share = (waited + failed + after.waiting) / callers if callers else 0.0
        self.rate = self.acquired / self.seconds if self.seconds else None
        self.held = self.in_flight / self.rate if self.rate else None
        self.in_queue = max(after.waiting, wait_seconds / self.seconds if self.seconds else 0.0)
        self.limit = max((channel.limit for channel in after.channels), default=1)
        most = max((channel.limit for channel in (*before.channels, *after.channels)), default=1)
        self.is_limited = any(channel.limit < most for channel in after.channels)
        # A whole-connection lease takes all places of a connection. If nothing else is in flight, nothing else waits.
        busiest = max(before, after, key=lambda stats: stats.in_flight)
        exclusive = sum(channel.exclusive for channel in busiest.channels)
        # The limit is 0 while the server has refused the only call of a connection.
        streams = max(1, min(after.target_streams or target_of(max(1, self.limit)), self.limit))
        target = 1 if 0 < exclusive == self.peak else streams
        self.needed = max(1, exclusive + math.ceil((self.peak - exclusive + self.in_queue) / target))

    @property
    def waits(self) -> bool:
        """Whether callers wait for the pool."""
        return self.share > _TOLERATED_SHARE or self.after.waiting > 0

    def littles_law(self) -> str:
        """Returns Little's law as text; empty if the time is not known, or nothing was in flight in either snapshot."""
        if self.rate is None or not self.held:
            return ""
        return (
            f"(Little's law: {self.rate:.1f} per second, each holding its place for {1000 * self.held:.1f} ms, are "
            f"{self.in_flight:.1f} in flight; {self.in_queue:.1f} waiting.)"
        )

    def waiters(self) -> str:
        """Describes how many callers waited, and for how long."""
        failed = self.timeouts + self.rejected
        no_place = f"; {failed} got no place" if failed else ""
        return f"{100 * self.share:.1f} % of the callers waited, {1000 * self.mean_wait:.1f} ms on average{no_place}"


def _seconds(before: PoolStats, after: PoolStats) -> float | None:
    if before.taken_at is None or after.taken_at is None:
        return None
    seconds = (after.taken_at - before.taken_at).total_seconds()
    if seconds < 0:
        raise ValueError("the snapshots must be of one pool, the earlier one first")
    return seconds


def _judge(seen: _Observation) -> tuple[Verdict, str]:
    if seen.lost:
        return _connections_lost(seen)
    if not seen.acquired and not seen.waits and not seen.in_flight and not seen.open_failures:
        return Verdict.NO_LOAD, "the pool had no calls and no leases."
    if seen.refused_streams:
        return _limited_by_streams(seen)
    cannot_connect = seen.open_failures and not seen.after.ready and not seen.rests
    if seen.failed > _TOLERATED_FAILURES and not (cannot_connect and not seen.opened):
        return _sick_server(seen)
    if seen.waits or cannot_connect:
        return _with_waiters(seen)
    return _without_waiters(seen)


def _trouble(seen: _Observation, verdict: Verdict) -> Iterator[str]:
    """What else is wrong with servers or connections."""
    avoided = seen.after.avoided
    if seen.losses and verdict is not Verdict.CONNECTIONS_LOST:
        yield f"Connections went down {_times(seen.losses)} meanwhile."
    if seen.open_failures and verdict not in (Verdict.CONNECTIONS_LOST, Verdict.LIMITED_BY_CONNECTING):
        yield f"{_attempts(seen.open_failures)} to connect failed meanwhile."
    if verdict is Verdict.SICK_SERVER:
        return
    if seen.failures:
        now = f"; {_connections(avoided)} avoided now" if avoided else ""
        yield f"{_calls(seen.failures)} failed as calls do on a sick server{now}."
    elif avoided:
        yield f"{_connections(avoided)} avoided now, because calls failed before."


def _connections_lost(seen: _Observation) -> tuple[Verdict, str]:
    after = seen.after
    up = f"{_connections(after.ready)} up" if after.ready else "none is up"
    times = f"; connections went down {_times(seen.losses)} meanwhile" if seen.losses else ""
    attempts = f", and {_attempts(seen.open_failures)} to connect failed" if seen.open_failures else ""
    down = f"{_connections(after.lost)} down, {up}{times}{attempts}"
    text = f"{down}. A larger pool does not help: check server, network and log."
    return Verdict.CONNECTIONS_LOST, text


def _sick_server(seen: _Observation) -> tuple[Verdict, str]:
    after = seen.after
    worst = max(after.channels, key=lambda channel: channel.failures, default=None)
    where = ""
    if worst is not None and worst.failures:
        address = f" to {worst.address}" if worst.address else ""
        where = f" The most on one connection are {worst.failures}, on {worst.id}{address}."
    if seen.waits:
        # Those that waited for long may have failed at their deadlines because of that.
        remedy = f"{seen.waiters()}: check the servers, the deadlines of the calls, and whether max_size is too low"
    else:
        remedy = "A larger pool does not help: check the servers, and the deadlines of the calls"
    text = (
        f"{100 * seen.failed:.1f} % of the calls ({seen.failures}) failed as calls do on a sick server, and "
        f"{_connections(after.avoided)} avoided now.{where} {remedy}."
    )
    return Verdict.SICK_SERVER, text


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _calls(number: int) -> str:
    return f"{number} call{'s' * (number != 1)}"


def _attempts(number: int) -> str:
    return f"{number} attempt{'s' * (number != 1)}"


def _connections(number: int) -> str:
    return f"{number} connection{'s are' if number != 1 else ' is'}"


def _limited_by_streams(seen: _Observation) -> tuple[Verdict, str]:
    """Judges a pool with refusals. Lowered limits come back within seconds, so they may not show any more."""
    refused = f"the server refused {_calls(seen.refused_streams)}; one that is sent again may count several times"
    size = max(seen.needed, seen.after.max_size)
    remedy = f"max_streams below the server's limit ('grpcpool probe' shows it), and max_size to {size} or more"
    if seen.is_limited:
        text = (
            f"{refused}. Its stream limit is below max_streams; connections now carry at most {seen.limit}. Set "
            f"{remedy}."
        )
    else:
        text = (
            f"{refused}. No connection has a lowered limit now. Either the server's stream limit is below max_streams: "
            f"then set {remedy}. Or it sheds load, and refuses calls however few there are: then neither helps."
        )
    return Verdict.LIMITED_BY_STREAMS, text


def _with_waiters(seen: _Observation) -> tuple[Verdict, str]:
    """Judges a pool with waiters, or one that cannot connect."""
    after = seen.after
    if seen.open_failures and after.ready < after.max_size:
        failures = f"{_attempts(seen.open_failures)} to connect failed, {_connections(after.ready)} ready"
        waiters = f"; {seen.waiters()}" if seen.waits else ""
        text = f"{failures}{waiters}. A larger pool does not help: check server, network and log."
        return Verdict.LIMITED_BY_CONNECTING, text
    # What is being opened may also be a successor, or find out whether a target is up.
    if after.size - after.draining - after.opening < after.max_size:
        wanted = min(seen.needed, after.max_size)
        remedy = f"Set min_size to {wanted}" if wanted > after.min_size else "Call open() at the start"
        text = (
            f"{seen.waiters()}, although max_size allows more than {after.ready} connections: {seen.opened} were "
            f"opened, and callers waited for them. {remedy} to open them before the load arrives, or check why "
            "connecting takes long."
        )
        return Verdict.LIMITED_BY_CONNECTING, text
    larger = max(seen.needed, after.max_size + 1)
    which = f"all {after.max_size} connections" if after.max_size > 1 else "the only connection"
    text = (
        f"{seen.waiters()}, with {which} open. Set max_size to {larger} or more if the server has spare capacity; "
        "otherwise calls would wait there instead."
    )
    return Verdict.TOO_SMALL, text


def _without_waiters(seen: _Observation) -> tuple[Verdict, str]:
    """Judges a pool with almost no waiters."""
    after = seen.after
    in_service = after.size - after.draining
    if seen.needed <= in_service // 2:
        waiters = f"only {100 * seen.share:.1f} % of the callers" if seen.share else "no caller"
        text = (
            f"{waiters} waited, and {in_service} connections were open for {seen.peak} in flight, in the busier of the "
            f"two snapshots; {seen.needed} would be enough. "
        )
        if after.min_size > seen.needed:
            return Verdict.TOO_LARGE, f"{text}Set min_size to {seen.needed}."
        return (
            Verdict.TOO_LARGE,
            f"{text}Idle connections close by themselves; a shorter idle_timeout closes them sooner.",
        )
    # In loose mode there may be more.
    most = f" of at most {after.max_size}" if in_service <= after.max_size else ""
    text = (
        f"{100 * seen.share:.1f} % of the callers waited, and {in_service}{most} connections "
        f"carry {seen.peak} in flight. If calls are slow, the cause is elsewhere: the server or the network."
    )
    return Verdict.NOT_THE_BOTTLENECK, text
