"""The inspector's page with many connections: what is shown, folded and grouped, also on a phone."""

from __future__ import annotations

import pathlib

import grpc
import pytest
from selenium.webdriver.common.keys import Keys

import grpcpool
from components.programs import program
from contrib.inspector.documents import TROUBLES, Changed, crowd, history, restart
from contrib.inspector.pages import CONTRAST, inspect, live, page_of
from grpcpool import ChannelPool, PoolConfig, PoolTimeoutError
from grpcpool._values.slot_states import CloseReason
from grpcpool.contrib.inspector import PoolDocument, serve
from grpcpool.contrib.inspector._history import HistoryListener
from grpcpool.events import Closed, Draining, Opened
from support.browser import Browser
from support.pools import PoolMaker
from support.servers import FAIL, RECONNECT_SOON, Server, unary
from support.waiting import eventually

OVERLAPS = (pathlib.Path(__file__).parent / "overlaps.js").read_text()
OPEN_ALL = """
    document.querySelectorAll('details').forEach((each) => { each.open = true; });
    document.querySelectorAll('tr.line button[aria-expanded=false]').forEach((each) => { each.click(); });
"""
FOUR = tuple(f"10.0.0.{last}:50051" for last in (7, 8, 9, 10))
LINE = "tr.line button"


@pytest.fixture
def pool(server: Server, make_pool: PoolMaker) -> ChannelPool:
    """A pool without connections, whose JSON the tests change."""
    return make_pool(server.channel, name="orders")


def after_an_update(browser: Browser) -> None:
    """Waits until the page has been updated at least once more."""
    began = browser.run("return performance.now()")
    eventually(lambda: browser.run("return performance.now()") > began + 700)


def focused(browser: Browser) -> str:
    """Returns the text of the element that has the focus."""
    return str(browser.run("return document.activeElement.textContent"))


def ids(browser: Browser) -> list[int]:
    """Returns the connections that are shown, in order."""
    return [int(text) for text in browser.texts(".connections tbody th")]


def test_problems_come_first_and_the_others_are_one_line(browser: Browser, pool: ChannelPool) -> None:
    """Of 64 connections, each that is lost, avoided, draining or full has a row; the 58 others are one line."""
    with page_of(browser, Changed(pool, crowd(TROUBLES))):
        assert ids(browser) == [5, 9, 13, 21, 20, 33]
        states = ["lost", "avoided", "avoided", "draining (unresponsive)", "draining (age)", "ready"]
        assert browser.texts("td.state") == states
        assert browser.texts(".connections tbody td.count")[-1] == "90 / 90"
        assert browser.texts(LINE) == ["58 ready, 0 to 4 of 90 streams each"]
        assert browser.texts(".connections tbody tr")[-1] == "58 ready, 0 to 4 of 90 streams each"


def test_the_line_expands_by_keyboard_and_stays_expanded(browser: Browser, pool: ChannelPool) -> None:
    """Enter expands and folds the line; updates that change the rows before it keep its state and the focus."""
    inspector = Changed(pool, crowd(TROUBLES))
    with page_of(browser, inspector):
        stops = [browser.tab() for _ in range(3)]
        assert stops[2] == "BUTTON 58 ready, 0 to 4 of 90 streams each"
        assert browser.all(LINE)[0].get_attribute("aria-expanded") == "false"
        browser.press(Keys.ENTER)
        eventually(lambda: len(ids(browser)) == 64)
        assert browser.all(LINE)[0].get_attribute("aria-expanded") == "true"
        inspector.changes = (crowd({5: {"state": "lost"}, 64: {"state": "lost"}}),)
        eventually(lambda: ids(browser)[:2] == [5, 64])
        assert focused(browser) == "62 ready, 0 to 4 of 90 streams each"
        inspector.changes = (crowd({}),)
        eventually(lambda: focused(browser) == "64 ready, 0 to 4 of 90 streams each")
        inspector.changes = (crowd(TROUBLES),)
        eventually(lambda: ids(browser)[:6] == [5, 9, 13, 21, 20, 33])
        after_an_update(browser)
        assert focused(browser) == "58 ready, 0 to 4 of 90 streams each"
        assert len(ids(browser)) == 64
        browser.press(Keys.SPACE)
        eventually(lambda: len(ids(browser)) == 6)
        assert browser.all(LINE)[0].get_attribute("aria-expanded") == "false"


def test_the_room_includes_what_drains(browser: Browser, pool: ChannelPool) -> None:
    """Beside the number in flight is the room for it: of 61 ready connections, and what the draining ones carry."""
    with page_of(browser, Changed(pool, crowd(TROUBLES))):
        assert browser.texts("[data-text=streams]") == ["of 5,499 streams"]


def test_the_most_loaded_come_first(browser: Browser, pool: ChannelPool) -> None:
    """Expanded, connections are in the order of their load, by quarters, then of their numbers."""
    loads = {number: {"in_flight": number} for number in range(1, 65)}
    with page_of(browser, Changed(pool, crowd(loads))):
        assert browser.texts(LINE) == ["64 ready, 1 to 64 of 90 streams each"]
        browser.all(LINE)[0].click()
        eventually(lambda: len(ids(browser)) == 64)
        assert ids(browser) == [*range(45, 65), *range(23, 45), *range(1, 23)]


def test_each_address_is_a_group(browser: Browser, pool: ChannelPool) -> None:
    """With several addresses, each has its line with its problems below; groups with problems come first."""
    with page_of(browser, Changed(pool, crowd(TROUBLES, FOUR))):
        assert browser.texts("tr.line b") == [FOUR[1], FOUR[0], FOUR[2], FOUR[3]]
        assert browser.texts("tr.line span") == ["1 lost, 2 avoided, 1 draining", "1 draining", "", ""]
        lines = [f"{number} ready, 0 to 4 of 90 streams each" for number in (11, 15, 16, 16)]
        assert browser.texts(LINE) == lines
        assert ids(browser) == [5, 9, 13, 21, 33, 20]
        assert not browser.all("th.address")[0].is_displayed()
        browser.all(LINE)[2].click()
        eventually(lambda: len(ids(browser)) == 6 + 16)
        after_an_update(browser)
        assert ids(browser)[6:] == list(range(2, 65, 4))
        assert [each.get_attribute("aria-expanded") for each in browser.all(LINE)] == [
            "false",
            "false",
            "true",
            "false",
        ]


def test_one_connection_for_each_address_is_no_group(browser: Browser, pool: ChannelPool) -> None:
    """With as many addresses as connections, they are one line, not 64; rows show the address."""
    addresses = [f"10.0.1.{last}:50051" for last in range(64)]
    with page_of(browser, Changed(pool, crowd(TROUBLES, addresses))):
        assert browser.texts(LINE) == ["58 ready, 0 to 4 of 90 streams each"]
        assert browser.texts(".connections tbody td.address")[0] == "10.0.1.5:50051"
        assert browser.all("th.address")[0].is_displayed()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"in_flight": 90}, "64 ready, 90 of 90 streams each"),
        ({"exclusive": True, "in_flight": 1}, "64 with an exclusive lease"),
        ({"state": "opening", "in_flight": 0}, "64 opening"),
    ],
)
def test_a_crowd_of_full_or_opening_connections_is_one_line(
    browser: Browser, pool: ChannelPool, fields: dict[str, object], line: str
) -> None:
    """If most connections are full, leased or opening, they are folded, too."""
    with page_of(browser, Changed(pool, crowd(dict.fromkeys(range(1, 65), fields)))):
        assert browser.texts(LINE) == [line]
        assert ids(browser) == []


def test_a_rolling_restart_is_some_lines(browser: Browser, pool: ChannelPool) -> None:
    """The 256 events of a restart of 64 connections at 4 addresses are 4 lines; those of one address name it."""
    inspector = Changed(pool, restart)
    with page_of(browser, inspector):
        assert browser.texts(".events .what") == [
            "Opened: 64 connections, 4 addresses, in 250 ms, to replace others",
            "Closed: 64 connections, 4 addresses: connection down",
            "Draining: 64 connections, 4 addresses: connection down; 128 in flight",
            "Lost: 64 connections, 4 addresses: ipv4:10.0.0.10:50051: Socket closed; 63 up",
        ]

        def of_one_address(document: PoolDocument) -> None:
            restart(document)
            document["events"] = document["events"][:48]

        inspector.changes = (of_one_address,)
        expected = "Lost: 12 connections, 10.0.0.7:50051: ipv4:10.0.0.7:50051: Socket closed; 63 up"
        eventually(lambda: browser.texts(".events .what")[-1] == expected)


def test_different_reasons_and_times_are_different_lines(browser: Browser, pool: ChannelPool) -> None:
    """Events of different reasons, and those of an earlier time, are lines of their own."""
    inspector = inspect(pool)
    (inspected,) = inspector._inspected.values()
    listener = HistoryListener(inspected._history)
    for number in range(1, 4):
        listener.opened(Opened(pool="orders", channel=number, seconds=number / 10))
    for event in inspected._history._record.events:
        event.at, event.last_at = event.at - 11, event.last_at - 11
    listener.opened(Opened(pool="orders", channel=4, seconds=0.4))
    for number in range(1, 4):
        reason = CloseReason.AGE if number < 3 else CloseReason.IDLE
        listener.draining(Draining(pool="orders", channel=number, reason=reason, in_flight=number))
        listener.closed(Closed(pool="orders", channel=number, reason=reason, cancelled=number - 1))
    with page_of(browser, inspector):
        assert browser.texts(".events .what") == [
            "Closed: idle for idle_timeout; cancelled 2 in flight",
            "Draining: idle for idle_timeout; 3 in flight",
            "Closed: 2 connections: max_age reached; cancelled 1 in flight",
            "Draining: 2 connections: max_age reached; 3 in flight",
            "Opened in 400 ms",
            "Opened: 3 connections, in 100 ms to 300 ms",
        ]


def test_failures_rejections_and_waits_are_shown(browser: Browser, pool: ChannelPool) -> None:
    """Charts and table have failed calls, and rejected and timed-out ones, of each interval; gaps have none.

    The percentiles are beside the queue.
    """
    with page_of(browser, Changed(pool, crowd({}), history)):
        labels = [each.get_attribute("aria-label") for each in browser.all(".timeline svg")]
        assert labels[3] == "Failed calls in the last 60 s: 10, at most 6 in 250 ms"
        assert labels[4] == "Rejected or timed out in the last 60 s: 7, at most 5 in 250 ms"
        assert browser.texts(".timeline .range")[3:] == ["10, at most 6 in 250 ms", "7, at most 5 in 250 ms"]
        assert browser.texts(".waits dt") == ["p50", "p90", "p99"]
        assert browser.texts(".waits dd") == ["12 ms", "80 ms", "350 ms"]
        assert browser.texts("[data-text=waits]") == ["of 1,234 waits in the last 60 s, 2 timed out"]
        browser.run(OPEN_ALL)
        eventually(lambda: browser.texts(".as-table tbody tr"))
        for name, total in (("Failed calls", 10), ("Rejected or timed out", 7)):
            cells = browser.texts(f".as-table td[data-label='{name}']")
            assert sum(map(int, cells)) == total


def test_a_pools_own_failures_and_waits_are_shown(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """Failed and timed-out calls of a real pool appear in the charts; without waits the page says so."""
    pool = make_pool(server.channel, max_size=1, name="real")
    pool.open()
    with page_of(browser, inspect(pool)):
        unserved = "[data-chart=unserved] .range"
        eventually(lambda: browser.texts(unserved) == ["none"])
        with pool.acquire(), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.05)
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, b"INTERNAL")
        eventually(lambda: browser.texts(unserved) == ["1, at most 1 in 250 ms"])
        eventually(lambda: browser.texts("[data-chart=failed] .range") == ["1, at most 1 in 250 ms"])
        eventually(lambda: "1 timed out" in browser.texts("[data-text=waits]")[0])


def test_an_outage_of_64_connections(browser: Browser) -> None:
    """When the server of 64 connections is gone, each is shown as lost, in one line of events, until it is back."""
    config = PoolConfig(min_size=64, max_size=64, connect_timeout=20)
    with (
        Server() as dying,
        grpcpool.insecure_channel(dying.target, RECONNECT_SOON, config=config, name="orders") as pool,
        page_of(browser, inspect(pool)),
    ):
        pool.open()
        eventually(lambda: browser.texts(LINE) == ["64 ready, 0 of 90 streams each"])
        assert ids(browser) == []
        dying.kill()
        eventually(lambda: browser.texts("td.state") == ["lost"] * 64)
        assert browser.texts("[data-text=health]") == ["down, 64 lost"]
        eventually(lambda: any(text.startswith("Lost: 64 connections, ") for text in browser.texts(".events .what")))
        assert len(browser.texts(".events .what")) <= 8
        assert browser.run(CONTRAST) == []
        assert browser.violations(program("axe.min.js")) == []
        dying.restart()
        eventually(lambda: browser.texts("[data-text=health]") == [""])
        eventually(lambda: ids(browser) == [])
        assert len(browser.texts(".events .what")) <= 12


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_problems_in_a_crowd(browser: Browser, pool: ChannelPool, scheme: str, width: int) -> None:
    """With 64 connections, some of them in trouble, axe finds no problems; folded or expanded, one address or four."""
    browser.prefer(color_scheme=scheme)
    inspector = Changed(pool, crowd(TROUBLES), history, restart)
    with page_of(browser, inspector, width=width):
        assert browser.violations(program("axe.min.js")) == []
        inspector.changes = (crowd(TROUBLES, FOUR), history, restart)
        eventually(lambda: len(browser.texts(LINE)) == 4)
        browser.run(OPEN_ALL)
        eventually(lambda: len(ids(browser)) == 64)
        assert browser.violations(program("axe.min.js")) == []
        assert browser.run(CONTRAST) == []


@pytest.mark.parametrize("addresses", [FOUR[:1], FOUR, ("a-long-name.of-a-host.europe-west.example.com:50051",)])
@pytest.mark.parametrize("width", [320, 390])
def test_it_is_readable_on_a_phone(browser: Browser, pool: ChannelPool, width: int, addresses: tuple[str, ...]) -> None:
    """On a phone nothing is cut off or overlaps, and each touch target has at least 24 pixels."""
    with page_of(browser, Changed(pool, crowd(TROUBLES, addresses), history, restart), width=width, height=800):
        browser.run(OPEN_ALL)
        eventually(lambda: len(ids(browser)) == 64)
        eventually(lambda: browser.texts(".as-table tbody tr"))
        assert browser.run("return document.documentElement.scrollWidth") == width
        sides = "return [...document.querySelectorAll('.pool *')].map((each) => each.getBoundingClientRect().right)"
        assert max(browser.run(sides)) <= width
        assert browser.run(OVERLAPS) == []
        small = """
            const targets = [...document.querySelectorAll("a:not(.skip), button, select, summary")];
            const box = (each) => each.getBoundingClientRect();
            return targets.filter((each) => each.checkVisibility() && (box(each).width < 24 || box(each).height < 24))
                .map((each) => each.outerHTML);
        """
        assert browser.run(small) == []


@pytest.mark.parametrize("addresses", [FOUR, ("[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50051",)])
def test_it_fits_any_width(browser: Browser, pool: ChannelPool, addresses: tuple[str, ...]) -> None:
    """At each width from a phone's to a large screen's, nothing overlaps and the page does not scroll sideways."""
    inspector = Changed(pool, crowd(TROUBLES, addresses), history, restart)
    with serve(inspector) as serving:
        for width in (480, 577, 640, 768, 1024, 1153, 1280, 1920):
            browser.open(serving.url, width=width)
            live(browser)
            browser.run(OPEN_ALL)
            eventually(lambda: browser.texts(".as-table tbody tr"))
            assert browser.run("return document.documentElement.scrollWidth") == width
            assert browser.run(OVERLAPS) == []
            sides = (
                "return ['.connections', '.connections table'].map((each) => document.querySelector(each).scrollWidth)"
            )
            outer, inner = browser.run(sides)
            assert inner <= outer
        browser.leave()
