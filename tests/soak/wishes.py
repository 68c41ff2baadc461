"""What callers want: calls of every kind, and what each may come to by its caller's own will.

A caller draws one after the other from dice of its own, so that a seed says who wants what, and in which order.
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
# gRPC has a code for what cannot be (de)serialized; asyncio's gRPC raises what was raised.
BROKEN = frozenset({"INTERNAL", "UNKNOWN", "CANCELLED", "BrokenError"})

# Seconds that a call may take whose caller has time. More than a server is ever gone for.
PATIENCE = 6.0

# So long a call lasts that is to be cancelled: none has ended by then.
_FOR_EVER = b"60000"


class BrokenError(Exception):
    """What callers' own code raises, when it is to."""


def broken(message: object) -> NoReturn:
    """A serializer, or deserializer, that fails."""
    raise BrokenError("as asked")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One thing that a caller wants.

    Attributes:
        kind: Of call: ``unary``, ``future``, ``stream``, ``collect``, ``chat``, or ``lease``.
        manner: What the caller does with it; each world has a function for each kind and manner.
        method: To be called.
        request: Of a call with one request.
        size: How many messages, or streams, or calls.
        pause: Seconds: before the caller cancels or drops a call, or for which he does something else.
        timeout: Seconds.
        waits: Whether it says ``wait_for_ready``.
        means: What it may come to by its caller's own will; whatever else needs an explanation.
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


# How often each is wanted, and what it may come to.
_MANNERS: dict[tuple[str, str], tuple[int, frozenset[str]]] = {
    ("unary", "plain"): (20, OK),
    ("unary", "failing"): (2, frozenset({"NOT_FOUND"})),
    ("unary", "overdue"): (3, DEADLINE),
    ("unary", "impatient"): (3, OK | DEADLINE),
    ("unary", "unserializable"): (1, BROKEN),
    ("future", "awaited"): (10, OK),
    ("future", "told"): (5, OK),
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
    """What one caller wants, without end."""
    kinds = list(_MANNERS)
    weights = [weight for weight, _ in _MANNERS.values()]
    while True:
        ((kind, manner),) = rng.choices(kinds, weights)
        yield _wish(rng, kind, manner)


def plain(rng: random.Random, *, kind: str = "future") -> Wish:
    """A call as most are, for a crowd of them."""
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
        # One that is to be dropped or cancelled goes on for longer than anybody reads.
        number, pause = (size, rng.randint(0, 10)) if manner in ("whole", "undeserializable") else (1000, 10)
        return COUNT, b"%d,%d" % (number, pause)
    if manner in ("overdue", "cancelled"):
        return SLOW, _FOR_EVER
    return SLOW, b"%d" % rng.randint(1, 60)
