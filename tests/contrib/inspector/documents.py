"""Inspectors whose JSON is changed: a page of many connections in states that a real pool has only for a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from grpcpool import ChannelPool
from grpcpool.contrib.inspector import ChannelDocument, EventDocument, Inspector, PoolDocument, PoolsDocument

Change = Callable[[PoolDocument], None]
"""Changes the JSON of a pool."""


class Changed(Inspector):
    """An inspector of one pool that changes the pool's JSON."""

    def __init__(self, pool: ChannelPool, *changes: Change) -> None:
        """Applies `changes`, which may be replaced while the page is open."""
        super().__init__(pool, every=0.25, keep=60.0)
        self.changes = changes

    def document(self) -> PoolsDocument:
        """Returns the changed JSON."""
        document = super().document()
        for change in self.changes:
            change(document["pools"][0])
        return document


def channel(number: int, **fields: Any) -> ChannelDocument:
    """Returns a connection that is ready and carries 0 to 4 calls, with these `fields`."""
    now = time.time()
    document: dict[str, Any] = {
        "id": number,
        "state": "ready",
        "reason": None,
        "address": None,
        "in_flight": number % 5,
        "limit": 90,
        "exclusive": False,
        "avoided": False,
        "failures": 0,
        "created_at": now - 300,
        "used_at": now - 1,
        "calls": 1000 + number,
    }
    return {**document, **fields}  # type: ignore[typeddict-item]


TROUBLES: dict[int, dict[str, Any]] = {
    5: {"state": "lost", "in_flight": 0, "failures": 3},
    9: {"avoided": True, "failures": 12},
    13: {"avoided": True, "failures": 1},
    20: {"state": "draining", "reason": "age", "in_flight": 2},
    21: {"state": "draining", "reason": "unresponsive", "in_flight": 7},
    33: {"in_flight": 90},
}
"""Connections that are not well, or full."""


def crowd(troubles: dict[int, dict[str, Any]], addresses: Iterable[str] = ("10.0.0.7:50051",)) -> Change:
    """Returns a change that gives the pool 64 connections, at each address in turn; `troubles` are those not well."""
    places = list(addresses)

    def change(pool: PoolDocument) -> None:
        stats = pool["stats"]
        assert stats is not None
        numbers = range(1, 65)
        stats["channels"] = [
            channel(number, **{"address": places[number % len(places)], **troubles.get(number, {})})
            for number in numbers
        ]
        states = [each["state"] for each in stats["channels"]]
        stats["size"], stats["ready"], stats["lost"] = 64, states.count("ready"), states.count("lost")
        stats["avoided"] = sum(each["avoided"] for each in stats["channels"])
        stats["in_flight"] = sum(each["in_flight"] for each in stats["channels"])
        stats["waiting"], stats["failures"], stats["rejected"] = 3, 40, 12
        pool["config"]["max_streams"], pool["config"]["target_streams"] = 90, 60

    return change


def restart(pool: PoolDocument) -> None:
    """A rolling restart: each of 64 connections at 4 addresses is lost, drains, is replaced and closed, in 32 s."""
    began = time.time() - 40
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("lost", {"cause": "ipv4:{address}: Socket closed", "up": 63}),
        ("draining", {"reason": "lost", "in_flight": 2}),
        ("closed", {"reason": "lost", "cancelled": 0}),
        ("opened", {"seconds": 0.25, "replaces": 1}),
    ]
    pool["events"] = []
    for number in range(64):
        address = f"10.0.0.{7 + number // 16}:50051"
        for kind, details in kinds:
            at = began + number / 2
            shown = {name: each.format(address=address) if name == "cause" else each for name, each in details.items()}
            event: EventDocument = {
                "id": len(pool["events"]) + 1,
                "kind": kind,
                "channel": number + 64 * (kind == "opened"),
                "address": address,
                "at": at,
                "last_at": at,
                "count": 1,
                "details": shown,
            }
            pool["events"].append(event)


def history(pool: PoolDocument) -> None:
    """A minute with a gap of 10 s before its last 20 s: calls failed, were rejected and timed out at its end; waits."""
    chance = random.Random(1)  # noqa: S311 -- no secret
    now = time.time()
    back = [60 - 0.25 * i for i in range(241) if not 20 < 60 - 0.25 * i < 30]
    size = len(back)
    failures = [0] * (size - 8) + [4, 10, 10, 10, 10, 10, 10, 10]
    pool["timeline"] = {
        "at": [now - seconds for seconds in back],
        "in_flight": [150 + chance.randint(0, 40) for _ in back],
        "size": [64] * size,
        "waiting": [chance.randint(0, 5) for _ in back],
        "acquired": [75 * i for i in range(size)],
        "failures": failures,
        "timeouts": [2 * (i > size - 4) for i in range(size)],
        "rejected": [5 * (i > size - 3) for i in range(size)],
    }
    pool["waits"] = {"count": 1234, "timed_out": 2, "seconds": 60.0, "p50": 0.012, "p90": 0.08, "p99": 0.35}
