"""What callers do: calls of every kind, and the outcomes that their callers intend.

Each caller draws one wish after the other from its own random numbers, so that a seed determines all wishes and their
order.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import NoReturn

from support.servers import COUNT, FAIL, SLOW

OK = frozenset({"ok"})
CANCELLED = frozenset({"CANCELLED"})
DROPPED = frozenset({"dropped"})
DEADLINE = frozenset({"DEADLINE_EXCEEDED"})
# gRPC has a code for what cannot be (de)serialized; asyncio's gRPC raises the codec's own error.
BROKEN = frozenset({"INTERNAL", "UNKNOWN", "CANCELLED", "BrokenError"})

# Seconds for a call whose caller has time. No server is down for longer.
PATIENCE = 6.0

# The milliseconds of a call that is to be cancelled; none ends earlier by itself.
_FOR_EVER = b"60000"


class BrokenError(Exception):
    """Raised by callers' own code, on purpose."""


def broken(message: object) -> NoReturn:
    """A serializer, or deserializer, that fails."""
    raise BrokenError("as asked")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One thing that a caller does.

    Attributes:
        kind: ``unary``, ``future``, ``stream``, ``collect``, ``chat``, or ``lease``.
        manner: What the caller does with it; each world has a function for each kind and manner.
        method: The method to call.
        request: The request of a call with one.
        size: How many messages, or streams, or calls.
        pause: Seconds before the caller cancels or drops a call, or for which it does something else.
        timeout: Seconds.
        waits: Whether it is `wait_for_ready`.
        means: The outcomes that the caller intends; any other needs an explanation.
    """

    kind: str
    manner: str
    method: str
    request: bytes
    size: int
    pause: float
    timeout: float
    waits: bool
    means: frozenset[str]

    @property
    def name(self) -> str:
        """Kind and manner."""
        return f"{self.kind}, {self.manner}"


# The weight of each, and its intended outcomes.
_MANNERS: dict[tuple[str, str], tuple[int, frozenset[str]]] = {
    ("unary", "plain"): (20, OK),
    ("unary", "failing"): (2, frozenset({"NOT_FOUND"})),
    ("unary", "overdue"): (3, DEADLINE),
    ("unary", "impatient"): (3, OK | DEADLINE),
    ("unary", "unserializable"): (1, BROKEN),
    ("future", "awaited"): (10, OK),
    ("future", "notified"): (5, OK),
    ("future", "cancelled"): (4, CANCELLED),
    ("future", "dropped"): (4, DROPPED),
    ("stream", "whole"): (10, OK),
    ("stream", "dropped"): (4, DROPPED),
    ("stream", "unread"): (3, DROPPED),
    ("stream", "cancelled"): (4, CANCELLED),
    ("stream", "undeserializable"): (1, BROKEN),
    ("collect", "plain"): (6, OK),
    ("collect", "cancelled"): (3, CANCELLED),
    ("collect", "broken"): (1, BROKEN),
    ("chat", "whole"): (6, OK),
    ("chat", "dropped"): (3, DROPPED),
    ("chat", "cancelled"): (3, CANCELLED),
    ("lease", "calls"): (6, OK),
    ("lease", "crowd"): (4, OK),
    ("lease", "early"): (3, OK),
    ("lease", "discarded"): (1, OK),
    ("lease", "tried"): (3, OK | {"PoolTimeoutError"}),
}


def wishes(rng: random.Random) -> Iterator[Wish]:
    """What one caller does, without end."""
    kinds = list(_MANNERS)
    weights = [weight for weight, _ in _MANNERS.values()]
    while True:
        ((kind, manner),) = rng.choices(kinds, weights)
        yield _wish(rng, kind, manner)


def plain(rng: random.Random, *, kind: str = "future") -> Wish:
    """An ordinary call, for a crowd of them."""
    manners = {"future": "awaited", "stream": "whole", "lease": "calls"}
    return _wish(rng, kind, manners[kind])


def _wish(rng: random.Random, kind: str, manner: str) -> Wish:
    size = rng.randint(2, 12)
    method, request = _request(rng, kind, manner, size)
    timeout = PATIENCE + rng.uniform(0, 2)
    if manner == "overdue":
        timeout = rng.uniform(0.02, 0.3)
    elif manner == "impatient":
        timeout = rng.uniform(0.05, 0.5)
    elif manner == "tried":
        timeout = 0.0
    return Wish(
        kind=kind,
        manner=manner,
        method=method,
        request=request,
        size=size,
        pause=rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]),
        timeout=timeout,
        waits=rng.random() < 0.3,
        means=_MANNERS[kind, manner][1],
    )


def _request(rng: random.Random, kind: str, manner: str, size: int) -> tuple[str, bytes]:
    if manner == "failing":
        return FAIL, b"NOT_FOUND"
    if kind == "stream":
        # A stream to be dropped or cancelled lasts longer than it is read.
        number, pause = (size, rng.randint(0, 10)) if manner in ("whole", "undeserializable") else (1000, 10)
        return COUNT, b"%d,%d" % (number, pause)
    if manner in ("overdue", "cancelled"):
        return SLOW, _FOR_EVER
    return SLOW, b"%d" % rng.randint(1, 60)
