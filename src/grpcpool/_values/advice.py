"""What two snapshots of a pool say about its size: `advise`.

Little's law ties the figures together: what is in flight on average is the rate at which it comes times the time that
each spends there. So the connections that a load needs are its places in flight, and those that wait for one, over the
places that a connection is meant to carry.

The verdicts, in the order in which they are tried; the first that fits is told:

==================== ===============================================================================================
nothing to tell      nothing was asked for, and nobody waits
limited by streams   the server refused calls: its limit is below ours
limited by connecting connections cannot be made, or who waits waits for those being made while there may be more
too small            who waits finds the pool at `max_size`, with every place taken
too large            nobody waited to speak of, and most of the connections that are kept have nothing to do
not the bottleneck   nobody waited to speak of, and the pool is of the right size
==================== ===============================================================================================
"""

from __future__ import annotations

import dataclasses
import enum
import math

from .config import target_of
from .stats import PoolStats

# So few of those who ask may wait before the pool is said to hold them up.
_FEW = 0.01


class Verdict(enum.StrEnum):
    """What a pool's figures come to."""

    NOTHING_TO_TELL = "nothing to tell"
    LIMITED_BY_CONNECTING = "limited by connecting"
    LIMITED_BY_STREAMS = "limited by streams"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    NOT_THE_BOTTLENECK = "not the bottleneck"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What `advise` found. As text, it is the whole advice in words.

    Attributes:
        verdict: What the figures come to.
        text: What was seen, and what to do about it.
        seconds: Time between the snapshots; `None` if they do not tell.
        rate: Leases and calls that got a place, a second.
        in_flight: Leases and calls in flight, as the mean of the two snapshots.
        in_queue: Leases and calls that waited, on average: by Little's law, their rate times their mean wait.
        waited: Share of those who asked that waited, or were turned away.
        mean_wait: Seconds that those who waited waited, on average.
        held: Seconds that a place was held, on average: by Little's law, in flight over rate.
        needed: Connections that this load needs.
    """

    verdict: Verdict
    text: str
    seconds: float | None
    rate: float | None
    in_flight: float
    in_queue: float
    waited: float
    mean_wait: float
    held: float | None
    needed: int

    def __str__(self) -> str:
        """The verdict and the reasons."""
        return f"{self.verdict}: {self.text}"


def advise(before: PoolStats, after: PoolStats) -> Advice:
    """Says whether a pool is too small, too large, held up by something else, or not the bottleneck.

    Args:
        before: A snapshot of the pool (`stats()`).
        after: A later one, some minutes of usual load later: the advice is about the time between.

    Raises:
        ValueError: They are not two snapshots of one pool in this order.
    """
    if after.acquired < before.acquired or after.opened < before.opened:
        raise ValueError("the snapshots must be of one pool, the earlier one first: its counters went back")
    seen = _Seen(before, after)
    verdict, text = _judge(seen)
    return Advice(
        verdict=verdict,
        text=f"{text} {seen.told()}".strip(),
        seconds=seen.seconds,
        rate=seen.rate,
        in_flight=seen.in_flight,
        in_queue=seen.in_queue,
        waited=seen.share,
        mean_wait=seen.mean_wait,
        held=seen.held,
        needed=seen.needed,
    )


class _Seen:
    """The figures of the time between two snapshots."""

    def __init__(self, before: PoolStats, after: PoolStats) -> None:
        self.after = after
        self.seconds = _seconds(before, after)
        self.acquired = after.acquired - before.acquired
        self.timeouts = after.timeouts - before.timeouts
        self.rejected = after.rejected - before.rejected
        self.refused_streams = after.refused_streams - before.refused_streams
        self.open_failures = after.open_failures - before.open_failures
        self.opened = after.opened - before.opened
        waited = after.waited - before.waited
        wait_seconds = after.wait_seconds - before.wait_seconds
        self.in_flight = (before.in_flight + after.in_flight) / 2
        self.peak = max(before.in_flight, after.in_flight)
        self.mean_wait = wait_seconds / waited if waited else 0.0
        turned_away = self.timeouts + self.rejected
        asked = self.acquired + turned_away + after.waiting
        self.share = (waited + turned_away + after.waiting) / asked if asked else 0.0
        self.rate = self.acquired / self.seconds if self.seconds else None
        self.held = self.in_flight / self.rate if self.rate else None
        self.in_queue = max(after.waiting, wait_seconds / self.seconds if self.seconds else 0.0)
        exclusive = any(channel.exclusive for stats in (before, after) for channel in stats.channels)
        # A whole-connection lease takes all that a connection carries.
        self.limit = max((channel.limit for channel in after.channels), default=1)
        self.target = 1 if exclusive else target_of(self.limit)
        self.needed = max(1, math.ceil((self.peak + self.in_queue) / self.target))

    @property
    def waits(self) -> bool:
        """Whether the pool holds up those who ask."""
        return self.share > _FEW or self.after.waiting > 0

    def told(self) -> str:
        """Little's law, in words; empty if the time is not known."""
        if self.rate is None or self.held is None:
            return ""
        return (
            f"(By Little's law: {self.rate:.1f} a second, each holding its place for {1000 * self.held:.1f} ms, are "
            f"{self.in_flight:.1f} in flight; {self.in_queue:.1f} waited.)"
        )

    def waiters(self) -> str:
        """How many waited, and for how long."""
        turned_away = self.timeouts + self.rejected
        gave_up = f", {turned_away} in vain" if turned_away else ""
        return f"{100 * self.share:.1f} % of those who asked waited, {1000 * self.mean_wait:.1f} ms on average{gave_up}"


def _seconds(before: PoolStats, after: PoolStats) -> float | None:
    if before.taken_at is None or after.taken_at is None:
        return None
    seconds = (after.taken_at - before.taken_at).total_seconds()
    if seconds < 0:
        raise ValueError("the snapshots must be of one pool, the earlier one first")
    return seconds


def _judge(seen: _Seen) -> tuple[Verdict, str]:
    if not seen.acquired and not seen.waits and not seen.in_flight and not seen.open_failures:
        return Verdict.NOTHING_TO_TELL, "nothing was asked of the pool."
    if seen.refused_streams:
        return _limited_by_streams(seen)
    if seen.waits or seen.open_failures:
        return _held_up(seen)
    return _at_ease(seen)


def _limited_by_streams(seen: _Seen) -> tuple[Verdict, str]:
    text = (
        f"the server refused {seen.refused_streams} calls for its own limit of streams, which is below max_streams; "
        f"connections carry {seen.limit} at most now. Set max_streams below the server's limit ('grpcpool probe' shows "
        f"it), and max_size to {max(seen.needed, seen.after.max_size)} or more."
    )
    return Verdict.LIMITED_BY_STREAMS, text


def _held_up(seen: _Seen) -> tuple[Verdict, str]:
    """Somebody waited, or connections failed."""
    after = seen.after
    if seen.open_failures and after.ready < after.max_size:
        failed = f"{seen.open_failures} attempts to connect failed, {after.ready} connections are ready"
        text = f"{failed}; {seen.waiters()}. A larger pool would not help: look at the server, the network and the log."
        return Verdict.LIMITED_BY_CONNECTING, text
    if after.size - after.draining < after.max_size or after.opening:
        text = (
            f"{seen.waiters()}, while there might have been more than {after.ready} connections: {seen.opened} were "
            f"opened, and it is for them that calls waited. Have min_size={min(seen.needed, after.max_size)}, so that "
            "they are there before the load is, or look at why connecting takes long."
        )
        return Verdict.LIMITED_BY_CONNECTING, text
    larger = max(seen.needed, after.max_size + 1)
    text = (
        f"{seen.waiters()}, with all {after.max_size} connections open. Set max_size to {larger} or more if the server "
        "has more to give; if it has not, calls would wait there instead."
    )
    return Verdict.TOO_SMALL, text


def _at_ease(seen: _Seen) -> tuple[Verdict, str]:
    """Nobody waited to speak of."""
    after = seen.after
    in_service = after.size - after.draining
    if seen.needed <= in_service // 2:
        nobody = f"only {100 * seen.share:.1f} % of those who asked" if seen.share else "nobody"
        text = (
            f"{nobody} waited, and {in_service} connections were open for at most {seen.peak} in flight, which "
            f"{seen.needed} would carry. "
        )
        if after.min_size > seen.needed:
            return Verdict.TOO_LARGE, f"{text}Set min_size to {seen.needed}."
        return Verdict.TOO_LARGE, f"{text}They will close as idle by themselves; a shorter idle_timeout has it sooner."
    text = (
        f"{100 * seen.share:.1f} % of those who asked waited, and {in_service} connections of at most {after.max_size} "
        f"carry {seen.peak} in flight. If calls are slow, the time goes elsewhere: on the server, or on the network."
    )
    return Verdict.NOT_THE_BOTTLENECK, text
