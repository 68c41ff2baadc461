"""What the inspector remembers of a pool."""

from __future__ import annotations

import datetime as dt
import gc
import weakref

import grpc
import pytest

from grpcpool import PoolStats
from grpcpool._values.errors import ConnectError
from grpcpool._values.slot_states import CloseReason
from grpcpool.contrib.inspector._book import EVENTS_KEPT, Book, Ear
from grpcpool.events import (
    Closed,
    Draining,
    Leaked,
    Opened,
    OpenFailed,
    Opening,
    RefusedStream,
    Rejected,
    TimedOut,
)


def figures(in_flight: int) -> PoolStats:
    """A snapshot in which only `in_flight` matters."""
    counters = dict.fromkeys(PoolStats.__dataclass_fields__, 0)
    return PoolStats(**{**counters, "in_flight": in_flight, "closed": {}, "channels": ()})  # type: ignore[arg-type]


def recorded(book: Book) -> list[tuple[str, int | None, int, dict[str, object]]]:
    """What the book has of each event, without the times."""
    return [(each.kind, each.channel, each.count, dict(each.details)) for each in book.events()]


class DetailsOnlyError(grpc.RpcError):
    """A gRPC error that has details and no text of its own."""

    def details(self) -> str:
        """The details."""
        return "connection refused"


def test_each_event_is_remembered_with_its_reason() -> None:
    """The connections' events are remembered in order, with their reasons."""
    book = Book(1.0, 10.0)
    ear = Ear(book)
    ear.opening(Opening(pool="p", channel=2, replaces=1))
    ear.opened(Opened(pool="p", channel=2, seconds=0.25))
    ear.draining(Draining(pool="p", channel=1, reason=CloseReason.AGE, in_flight=3))
    assert book.reason(1) == "age"
    ear.closed(Closed(pool="p", channel=1, reason=CloseReason.AGE, cancelled=0))
    assert book.reason(1) is None
    assert recorded(book) == [
        ("opened", 2, 1, {"seconds": 0.25, "replaces": 1}),
        ("draining", 1, 1, {"reason": "age", "in_flight": 3}),
        ("closed", 1, 1, {"reason": "age", "cancelled": 0}),
    ]


def test_a_flood_is_one_event() -> None:
    """Of events that calls cause by the thousand, each kind is one event with a count, per connection, latest last."""
    book = Book(1.0, 10.0)
    ear = Ear(book)
    for waited in range(1000):
        ear.timed_out(TimedOut(pool="p", waited=waited))
        ear.rejected(Rejected(pool="p", waiting=waited))
    ear.refused_stream(RefusedStream(pool="p", channel=1, limit=9))
    ear.refused_stream(RefusedStream(pool="p", channel=2, limit=5))
    ear.refused_stream(RefusedStream(pool="p", channel=1, limit=8))
    assert recorded(book) == [
        ("timed_out", None, 1000, {"waited": 999}),
        ("rejected", None, 1000, {"waiting": 999}),
        ("refused_stream", 2, 1, {"limit": 5}),
        ("refused_stream", 1, 2, {"limit": 8}),
    ]


def test_failures_to_connect_are_one_event() -> None:
    """A server that is unreachable for long leaves room for other events."""
    book = Book(1.0, 10.0)
    ear = Ear(book)
    for channel in (1, 2):
        ear.open_failed(OpenFailed(pool="p", channel=channel, error=DetailsOnlyError(), retry_in=0.5))
    assert recorded(book) == [("open_failed", 2, 2, {"error": "connection refused", "retry_in": 0.5})]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ConnectError("not ready within 10 s"), "not ready within 10 s"),
        (ValueError("password 1234"), "ValueError"),
    ],
)
def test_only_grpcs_own_texts_are_shown(error: BaseException, shown: str) -> None:
    """Of an error of the user's own code only the name is shown, because its text may hold secrets."""
    book = Book(1.0, 10.0)
    Ear(book).open_failed(OpenFailed(pool="p", channel=1, error=error, retry_in=float("inf")))
    assert recorded(book) == [("open_failed", 1, 1, {"error": shown, "retry_in": None})]


def test_no_stack_is_remembered() -> None:
    """A leak is remembered without the stack that acquired the lease."""
    book = Book(1.0, 10.0)
    Ear(book).leaked(Leaked(pool="p", channel=1, held=3.0, stack="a = 'secret'"))
    assert recorded(book) == [("leaked", 1, 1, {"held": 3.0})]


def test_the_rings_are_bounded() -> None:
    """However much happens, only the latest events and samples are kept."""
    book = Book(1e-9, 4e-9)
    ear = Ear(book)
    for number in range(EVENTS_KEPT + 10):
        ear.opened(Opened(pool="p", channel=number, seconds=0.0))
        book.sample(figures(number))
    assert [each.channel for each in book.events()] == list(range(10, EVENTS_KEPT + 10))
    assert [each.in_flight for each in book.samples()] == list(range(EVENTS_KEPT + 5, EVENTS_KEPT + 10))


def test_many_readers_take_one_sample() -> None:
    """Samples are never closer than the interval, however many readers there are; each has its time."""
    book = Book(3600.0, 7200.0)
    before = dt.datetime.now(dt.UTC).timestamp()
    for number in range(5):
        book.sample(figures(number))
    (sample,) = book.samples()
    assert sample.in_flight == 0
    assert before - 1 < sample.at < before + 60


def test_in_a_forked_child_it_is_empty() -> None:
    """A forked child does not have the events of the parent's pool."""
    book = Book(1.0, 10.0)
    Ear(book).opened(Opened(pool="p", channel=1, seconds=0.0))
    book.sample(figures(1))
    book.after_fork_in_child()
    assert (book.events(), book.samples()) == ([], [])


def test_a_pool_does_not_keep_the_book_alive() -> None:
    """When the inspector is gone, its listener neither remembers nor keeps anything."""
    book = Book(1.0, 10.0)
    ear = Ear(book)
    gone = weakref.ref(book)
    del book
    gc.collect()
    assert gone() is None
    ear.opening(Opening(pool="p", channel=1, replaces=0))
    ear.opened(Opened(pool="p", channel=1, seconds=0.0))
    ear.rejected(Rejected(pool="p", waiting=1))
