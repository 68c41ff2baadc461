"""The page with values that are rare: other clocks, samples of one moment, very many samples, and nonsense."""

from __future__ import annotations

import time

import pytest

from contrib.inspector.documents import Changed, channel
from contrib.inspector.pages import page_of
from grpcpool import ChannelPool
from grpcpool.contrib.inspector import Inspector, PoolDocument
from support.browser import Browser
from support.pools import PoolMaker
from support.servers import Server
from support.waiting import eventually


@pytest.fixture
def pool(server: Server, make_pool: PoolMaker) -> ChannelPool:
    """A pool whose JSON is changed."""
    return make_pool(server.channel, name="odd")


def timeline(pool: PoolDocument, at: list[float]) -> None:
    """Gives the pool these samples, each with one more call."""
    zeros = [0] * len(at)
    pool["timeline"] = {
        "at": at,
        "in_flight": [number % 7 for number in range(len(at))],
        "size": zeros,
        "waiting": zeros,
        "acquired": list(range(len(at))),
        "failures": zeros,
        "timeouts": zeros,
        "rejected": zeros,
    }


def test_ages_are_by_the_pools_clock(browser: Browser, pool: ChannelPool) -> None:
    """A connection's age is right although the pool's clock stood still while the system was suspended."""

    def suspended(document: PoolDocument) -> None:
        stats = document["stats"]
        assert stats is not None
        now = document["taken_at"] = time.time() - 8 * 3600
        stats["channels"] = [channel(1, created_at=now - 300, used_at=now - 60)]

    with page_of(browser, Changed(pool, suspended)):
        assert browser.texts("td.age") == ["5 min"]
        assert browser.texts("td.used") == ["60 s ago"]


def test_the_json_has_the_pools_clock(pool: ChannelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The date of the snapshot is by the clock of the other dates in it, whatever has become of the calendar."""
    pool.open()
    inspector = Inspector(pool)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 8 * 3600)
    document = inspector.document()
    monkeypatch.undo()
    (shown,) = document["pools"]
    assert shown["stats"] is not None
    assert shown["taken_at"] is not None
    (only,) = shown["stats"]["channels"]
    assert 0 <= shown["taken_at"] - only["created_at"] < 600
    assert document["now"] - only["created_at"] > 7 * 3600


def test_samples_of_one_moment_have_no_rate(browser: Browser, pool: ChannelPool) -> None:
    """A rate needs two moments."""
    with page_of(browser, Changed(pool, lambda document: timeline(document, [time.time() - 1] * 3))):
        assert browser.texts("[data-text=rate]") == ["\u2013"]


def test_very_many_samples_are_shown(browser: Browser, pool: ChannelPool) -> None:
    """The charts have no limit on the number of samples."""

    def many(document: PoolDocument) -> None:
        now = time.time()
        timeline(document, [now - 50 + number / 4000 for number in range(200_000)])

    with page_of(browser, Changed(pool, many)):
        assert browser.texts("[data-chart=in_flight] .range") == ["0 to 6"]


def test_a_fault_of_the_page_is_not_blamed_on_the_server(browser: Browser, pool: ChannelPool) -> None:
    """If the page cannot show an answer, it says so, and goes on when it can."""
    inspector = Changed(pool)

    def nonsense(document: PoolDocument) -> None:
        document["config"] = None  # type: ignore[typeddict-item]

    with page_of(browser, inspector):
        inspector.changes = (nonsense,)
        eventually(lambda: browser.texts("#status-text")[0].startswith("this page failed: "))
        inspector.changes = ()
        eventually(lambda: browser.texts("#status-text") == ["live"])
    assert browser.problems()
