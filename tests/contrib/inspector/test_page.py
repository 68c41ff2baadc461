"""The inspector's page in a real browser, with real pools."""

from __future__ import annotations

import os
import socket

import grpc
import pytest
import uvicorn
from selenium.webdriver.common.keys import Keys
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

import grpcpool
from components.programs import program
from contrib.inspector.pages import CONTRAST, inspect, live, page_of
from grpcpool import ChannelPool, PoolConfig, PoolTimeoutError
from grpcpool.contrib.inspector import Inspector, PoolsDocument, Served, serve
from grpcpool.contrib.inspector._history import HistoryListener
from grpcpool.events import AddressesChanged, Leaked, LookUpFailed, Lost, Recovered
from support.browser import Browser
from support.pools import PoolMaker
from support.servers import ECHO, FAIL, RECONNECT_SOON, Server, unary
from support.waiting import eventually

GAUGES = (
    "in_flight",
    "waiting",
    "size",
    "timeouts",
    "rejected",
    "refused_streams",
    "open_failures",
    "failures",
    "losses",
)


def shown(browser: Browser, pool: str = ".pool") -> dict[str, str]:
    """Returns the values that the page shows for a pool."""
    return {name: "".join(browser.texts(f"{pool} [data-figure={name}]")) for name in GAUGES}


def test_the_page_shows_the_pools_stats(browser: Browser, held: ChannelPool) -> None:
    """With 7 in flight and 2 waiting, the page shows these numbers and each connection."""
    with page_of(browser, inspect(held)):
        stats = held.stats()
        assert shown(browser) == {name: str(getattr(stats, name)) for name in GAUGES}
        assert (shown(browser)["in_flight"], shown(browser)["waiting"]) == ("7", "2")
        rows = zip(*(browser.texts(f"tbody .{name}") for name in ("state", "count", "calls")), strict=True)
        assert list(rows) == [("ready", "exclusive", "1"), ("ready", "6 / 6", "6")]
        assert len(browser.all(".queue-marks rect")) == 2
        assert browser.texts("[data-text=queue]") == ["2 (limit 20)"]
        label = browser.all("[data-chart=in_flight] svg")[0].get_attribute("aria-label")
        assert label == "In flight in the last 60 s: now 7, min 7, max 7"


def test_the_page_follows_the_pool(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """New events appear with their reasons; problems are announced to screen readers."""
    pool = make_pool(server.channel, max_size=1, name="moving")
    unary(pool, ECHO, b"1")
    with page_of(browser, inspect(pool)):
        assert browser.texts("tbody th") == ["1"]
        assert browser.texts(".events .scroll li") == []
        pool.refresh()
        with_events = ["Closed: refreshed", "Opened in"]
        eventually(lambda: all(map(str.startswith, browser.texts(".events .what"), with_events)))
        eventually(lambda: browser.texts(".events .what")[:1] == ["Closed: refreshed"])
        assert browser.texts(".events .what")[1].endswith("replaces 1")
        assert browser.texts("tbody th") == ["2"]
        assert browser.texts("#announcements") == [""]
        with pool.acquire(), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.01)
        eventually(lambda: browser.texts("#announcements")[0].startswith("moving: Timed out: 1 waiter, after"))
        assert shown(browser)["timeouts"] == "1"


RED, AMBER, INK = "rgb(179, 38, 30)", "rgb(143, 84, 0)", "rgb(23, 32, 43)"


def test_an_outage_is_shown_in_words_and_colour(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """When the server is gone, the pool, its tile and each connection say so within about a second, until it is back.

    The target is shown beside the name, and each connection's address.
    """
    other = make_pool(server.channel, name="other")
    config = PoolConfig(min_size=2)
    with (
        Server() as dying,
        grpcpool.insecure_channel(dying.target, RECONNECT_SOON, config=config, name="orders") as pool,
        page_of(browser, inspect(pool, other)),
    ):
        pool.open()
        eventually(lambda: browser.texts("#pool-1 td.state") == ["ready", "ready"])
        assert browser.texts("#pool-1 .target") == [dying.target]
        assert browser.texts("#pool-1 td.address") == [dying.target] * 2
        assert browser.texts("#pool-1 [data-text=health]") == [""]
        assert browser.texts("#pool-1 .tags") == ["threads, strict, least loaded"]
        assert browser.style("#pool-1 [data-figure=size]", "color") == INK
        dying.kill()
        eventually(lambda: browser.texts("#pool-1 [data-text=health]") == ["down, 2 lost"], 3.0)
        assert browser.texts("#pool-1 td.state") == ["lost", "lost"]
        assert browser.texts("#pool-1 .tags") == ["down, 2 lost, threads, strict, least loaded"]
        assert browser.texts("nav li span") == ["down, 2 lost", "0 in flight, 0 waiting"]
        for part in ("#pool-1 [data-figure=size]", "#pool-1 [data-text=health]", "#pool-1 td.state", "#pool-1 .tags b"):
            assert browser.style(part, "color") == RED, part
        assert browser.style("nav li span", "color") == RED
        assert browser.style("#pool-1", "border-top-color") == RED
        assert browser.run(CONTRAST) == []
        lost = f"Lost: 2 connections, {dying.target}"
        eventually(lambda: any(text.startswith(lost) for text in browser.texts("#pool-1 .events .what")))
        eventually(lambda: browser.texts("#announcements")[0].startswith("orders"))
        assert ": Lost" in browser.texts("#announcements")[0]
        dying.restart()
        eventually(lambda: browser.texts("#pool-1 [data-text=health]") == [""])
        # On a machine so slow that the outage took two seconds, they were replaced.
        replaced = pool.stats().closed["lost"]
        eventually(
            lambda: replaced or any(text.startswith("Recovered") for text in browser.texts("#pool-1 .events .what"))
        )
        assert browser.style("#pool-1 td.state", "color") == INK


def test_an_avoided_connection_is_shown(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """A connection on which a call failed as on a sick server says so, and so do the tile and the events."""
    pool = make_pool(server.channel, max_size=1, name="sick")
    unary(pool, ECHO, b"1")
    with page_of(browser, inspect(pool)):
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, b"INTERNAL")
        eventually(lambda: browser.texts("td.state") == ["avoided"])
        assert browser.texts("td.failed") == ["1"]
        assert browser.texts("[data-text=health]") == ["1 avoided"]
        assert browser.style("td.state", "color") == AMBER
        assert browser.style("[data-text=health]", "color") == AMBER
        assert browser.style(".tags b", "color") == AMBER
        assert browser.texts("td.address") == [""]
        assert not browser.all("td.address")[0].is_displayed()
        eventually(lambda: browser.texts(".events .what") == ["Avoided: a call failed with INTERNAL"])
        assert browser.run(CONTRAST) == []


def test_thousands_of_events_stay_legible(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """Equal events are one line, with their number; they do not push others out."""
    pool = make_pool(server.channel, max_size=1, name="flood")
    inspector = inspect(pool)
    (inspected,) = inspector._inspected.values()
    listener = HistoryListener(inspected._history)
    unary(pool, ECHO, b"1")
    eventually(inspected._history.events)
    for seconds in range(3000):
        listener.lost(Lost(pool="flood", channel=1, up=0))
        listener.recovered(Recovered(pool="flood", channel=1, seconds=seconds % 10))
    for _ in range(3000):
        listener.leaked(Leaked(pool="flood", channel=1, held=60.0, stack=""))
    with page_of(browser, inspector):
        eventually(lambda: len(browser.texts(".events .what")) == 4)
        *lines, opened = browser.texts(".events .what")
        assert lines == [
            "Possible leak, 3,000 times: lease held for 60 s",
            "Recovered, 3,000 times, the last after 9.0 s",
            "Lost, 3,000 times; none is up",
        ]
        assert opened.startswith("Opened in")


def test_changes_of_addresses_are_shown(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """Other addresses of the target, and failed look-ups, are one line of each kind, with their number."""
    pool = make_pool(server.channel, name="moving")
    inspector = inspect(pool)
    (inspected,) = inspector._inspected.values()
    listener = HistoryListener(inspected._history)
    listener.addresses_changed(AddressesChanged(pool="moving", addresses=("a:1",), new=("a:1",), gone=()))
    for _ in range(3000):
        listener.look_up_failed(LookUpFailed(pool="moving", error=socket.gaierror(-2, "Name not known")))
    listener.addresses_changed(AddressesChanged(pool="moving", addresses=("b:1",), new=("b:1",), gone=("a:1",)))
    with page_of(browser, inspector):
        eventually(lambda: len(browser.texts(".events .what")) == 2)
        assert browser.texts(".events .what") == [
            "Addresses changed, 2 times: 1 now, 1 new, 1 gone",
            "Look-up failed, 3,000 times: [Errno -2] Name not known",
        ]


def test_pools_appear_and_disappear(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """A dropped pool disappears, a closed pool is marked as closed, and a page without pools says so."""
    staying, going = make_pool(server.channel, name="staying"), [ChannelPool(server.channel, name="going")]
    inspector = inspect(staying, *going)
    with page_of(browser, inspector):
        eventually(lambda: browser.texts("h2") == ["staying", "going"])
        assert browser.texts("nav b") == ["staying", "going"]
        staying.close()
        eventually(lambda: "closed, threads, strict, least loaded" in browser.texts(".tags"))
        going.clear()
        eventually(lambda: browser.texts("h2") == ["staying"])
    with page_of(browser, inspect()):
        eventually(browser.all("#empty")[0].is_displayed)


def test_under_a_prefix_it_requests_only_its_own_files(browser: Browser, held: ChannelPool) -> None:
    """Mounted in a service, the page requests only addresses below its own."""
    inspector = Inspector(held, every=0.25, keep=60.0)
    app = Starlette(routes=[Mount("/inner/pools", inspector)], lifespan=inspector.lifespan)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with Served(server, socket.create_server(("127.0.0.1", 0))) as serving:
        # Without the slash, as users type it.
        browser.open(f"{serving.url}inner/pools")
        live(browser)
        requested = browser.requested()
        browser.leave()
    page = f"{serving.url}inner/pools/"
    modules = ("card.js", "charts.js", "connections.js", "elements.js", "events.js", "page.js", "text.js")
    files = {f"{page}{name}" for name in ("", "page.css", *modules, "icon.svg", "pools")}
    assert set(requested) == files | {page.removesuffix("/")}


def test_it_shows_that_the_service_does_not_respond(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """When the service stops, the page says so and keeps the last values."""
    pool = make_pool(server.channel, name="left")
    with serve(inspect(pool)) as serving:
        browser.open(serving.url)
        live(browser)
    eventually(lambda: browser.texts("#status-text") == ["no response"])
    assert browser.texts("h2") == ["left"]
    assert all("ERR_CONNECTION_REFUSED" in problem for problem in browser.problems())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_in_light_and_dark(
    browser: Browser, held: ChannelPool, dead_pool: ChannelPool, scheme: str
) -> None:
    """It follows the reader's colour scheme; in both, text has a contrast of at least 4.5."""
    browser.prefer(color_scheme=scheme)
    held.refresh()
    with pytest.raises(grpc.RpcError):
        unary(dead_pool, ECHO, b"1")
    with page_of(browser, inspect(held, dead_pool)):
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        eventually(lambda: browser.texts(".as-table tbody tr"))
        assert browser.run(CONTRAST) == []
        light = browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(243, 245, 247)"
        assert light == (scheme == "light")


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_problems(
    browser: Browser, held: ChannelPool, dead_pool: ChannelPool, scheme: str, width: int
) -> None:
    """The accessibility checker axe finds no problems, best practices included."""
    browser.prefer(color_scheme=scheme)
    with page_of(browser, inspect(held, dead_pool), width=width):
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert browser.violations(program("axe.min.js")) == []


def test_it_works_with_the_keyboard(browser: Browser, held: ChannelPool, dead_pool: ChannelPool) -> None:
    """The Tab key reaches everything in page order; the focus is visible, and updates do not move it."""
    with page_of(browser, inspect(held, dead_pool)):
        held.refresh()
        eventually(lambda: browser.texts("#pool-1 .events li"))
        stops = [browser.tab() for _ in range(8)]
        assert stops[:2] == ["A Skip to the pools", "BUTTON pause"]
        assert [stop.split()[1][:4] for stop in stops[2:4]] == ["held", "dead"]
        assert stops[4].startswith("DIV ")
        assert stops[5:] == [
            "SUMMARY Settings",
            "SUMMARY Closed connections",
            "SUMMARY Timeline as a table",
        ]
        outline = (
            "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
        )
        assert browser.run(outline) == "solid2px"
        browser.press(Keys.ENTER)
        eventually(lambda: browser.texts("#pool-1 .as-table tbody td"))
        before = browser.texts("[data-text=since]"), browser.run("return performance.now()")
        eventually(lambda: browser.run("return performance.now()") > before[1] + 600)
        assert browser.run("return document.activeElement.textContent") == "Timeline as a table"


def test_it_can_be_paused(browser: Browser, held: ChannelPool) -> None:
    """While paused, the page sends no requests and does not change; afterwards it continues."""
    with page_of(browser, inspect(held)):
        browser.all("#pause")[0].click()
        eventually(lambda: browser.texts("#status-text") == ["paused"])
        began = browser.run("return performance.now()")
        browser.requested()
        eventually(lambda: browser.run("return performance.now()") > began + 600)
        assert browser.requested() == []
        browser.all("#pause")[0].click()
        live(browser)
        eventually(browser.requested)


def test_it_fits_a_narrow_screen(browser: Browser, held: ChannelPool, server: Server, make_pool: PoolMaker) -> None:
    """At a width of 320 pixels nothing is cut off, and the page does not scroll sideways."""
    long = make_pool(server.channel, name="a-rather-long-name-of-a-pool.production.europe-west.example.com:50051")
    inspector = inspect(held, long)
    held.refresh()
    with page_of(browser, inspector, width=320, height=640):
        eventually(lambda: "draining (refresh)" in browser.texts("td.state"))
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert browser.run("return document.documentElement.scrollWidth") == 320
        sides = "return [...document.querySelectorAll('.pool *')].map((each) => each.getBoundingClientRect().right)"
        assert max(browser.run(sides)) <= 320


def test_it_respects_reduced_motion(browser: Browser, held: ChannelPool) -> None:
    """Bars are animated, except for readers who prefer reduced motion."""
    with page_of(browser, inspect(held)):
        assert browser.style(".bar-fill", "transition-duration") == "0.35s"
        browser.prefer(reduced_motion="reduce")
        assert browser.style(".bar-fill", "transition-duration") == "0s"


class OtherProcess(Inspector):
    """The inspector of another worker process."""

    def document(self) -> PoolsDocument:
        """Returns its JSON with another process id."""
        document = super().document()
        document["process"]["pid"] = 1
        return document


class Workers:
    """Two workers behind one address, which respond in turn."""

    def __init__(self, *workers: Inspector) -> None:
        """Responds with the first worker first."""
        self._workers = list(workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request to the next worker."""
        self._workers.append(self._workers.pop(0))
        await self._workers[0](scope, receive, send)


def test_one_of_several_workers_is_shown(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """With several processes, the page shows one of them, names it, and lets the reader choose another."""
    first, second = make_pool(server.channel, name="first"), make_pool(server.channel, name="second")
    app = Workers(Inspector(first, every=0.25), OtherProcess(second, every=0.25))
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    names = {f"{os.getpid()} on {socket.gethostname()}": "first", f"1 on {socket.gethostname()}": "second"}
    with Served(uvicorn_server, socket.create_server(("127.0.0.1", 0))) as serving:
        browser.open(serving.url)
        eventually(lambda: set(browser.texts("#process option")) == set(names))
        for choice in reversed(browser.all("#process option")):
            choice.click()
            expected = [names[choice.text]]
            eventually(lambda expected=expected: browser.texts("h2") == expected)  # type: ignore[misc]
        browser.leave()
