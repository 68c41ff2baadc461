"""What a browser shows of real pools, and how the page can be used."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

import grpc
import pytest
import uvicorn
from selenium.webdriver.common.keys import Keys
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from grpcpool import ChannelPool, PoolTimeoutError
from grpcpool.contrib.inspector import Inspector, PoolsDocument, Served, serve
from support.pools import PoolMaker
from support.servers import ECHO, Server, unary
from support.waiting import eventually

from .browser import Browser

# The path of an accessibility checker's script, if there is one. The npm package is axe-core.
AXE = os.environ.get("GRPCPOOL_AXE")

CONTRAST = (pathlib.Path(__file__).parent / "contrast.js").read_text()

GAUGES = ("in_flight", "waiting", "size", "timeouts", "rejected", "refused_streams", "open_failures")


def shown(browser: Browser, pool: str = ".pool") -> dict[str, str]:
    """The figures that the page shows of a pool."""
    return {name: "".join(browser.texts(f"{pool} [data-figure={name}]")) for name in GAUGES}


def live(browser: Browser) -> None:
    """Waits until the page shows figures."""
    eventually(lambda: browser.texts("#pulse-text") == ["live"])


def inspect(*pools: ChannelPool) -> Inspector:
    """An inspector with shorter intervals than usual."""
    return Inspector(*pools, every=0.25, keep=60.0)


@contextlib.contextmanager
def page_of(browser: Browser, inspector: Inspector, **screen: int) -> Iterator[None]:
    """Shows the page, and leaves it before its server stops."""
    with serve(inspector) as serving:
        browser.open(serving.url, **screen)
        live(browser)
        try:
            yield
        finally:
            browser.leave()


def test_the_figures_on_the_page_are_the_pools(browser: Browser, held: ChannelPool) -> None:
    """With 7 calls held open and 2 waiting, the page shows these numbers, and each connection as it is."""
    with page_of(browser, inspect(held)):
        stats = held.stats()
        assert shown(browser) == {name: str(getattr(stats, name)) for name in GAUGES}
        assert (shown(browser)["in_flight"], shown(browser)["waiting"]) == ("7", "2")
        rows = zip(*(browser.texts(f"tbody .{name}") for name in ("state", "count", "calls")), strict=True)
        assert list(rows) == [("ready", "whole", "1"), ("ready", "6 / 6", "6")]
        assert len(browser.all(".queue-marks rect")) == 2
        assert browser.texts("[data-text=queue]") == ["2 of 20 at most"]
        label = browser.all("[data-chart=in_flight] svg")[0].get_attribute("aria-label")
        assert label == "In flight in the last 60 s: now 7, least 7, most 7"


def test_the_page_follows_the_pool(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """What happens meanwhile appears with its reason; what may need attention is announced to screen readers."""
    pool = make_pool(server.channel, max_size=1, name="moving")
    unary(pool, ECHO, b"1")
    with page_of(browser, inspect(pool)):
        assert browser.texts("tbody th") == ["1"]
        assert browser.texts(".events .scroll li") == []
        pool.refresh()
        with_events = ["Closed: refreshed", "Ready after"]
        eventually(lambda: all(map(str.startswith, browser.texts(".events .what"), with_events)))
        eventually(lambda: browser.texts(".events .what")[:1] == ["Closed: refreshed"])
        assert browser.texts(".events .what")[1].endswith("in place of 1")
        assert browser.texts("tbody th") == ["2"]
        assert browser.texts("#said") == [""]
        with pool.acquire(), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.01)
        eventually(lambda: browser.texts("#said")[0].startswith("moving: Timed out: 1 waiter, after"))
        assert shown(browser)["timeouts"] == "1"


def test_a_pool_comes_and_goes(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """A dropped pool disappears from the page, a closed one is marked as closed; without any, the page says so."""
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


def test_under_a_prefix_nothing_leaves_the_origin(browser: Browser, held: ChannelPool) -> None:
    """Mounted in a service, the page requests nothing outside its own address."""
    inspector = Inspector(held, every=0.25, keep=60.0)
    app = Starlette(routes=[Mount("/inner/pools", inspector)], lifespan=inspector.lifespan)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with Served(server, socket.create_server(("127.0.0.1", 0))) as serving:
        # Without the slash, as people type it.
        browser.open(f"{serving.url}inner/pools")
        live(browser)
        requested = browser.requested()
        browser.leave()
    page = f"{serving.url}inner/pools/"
    files = {f"{page}{name}" for name in ("", "page.css", "page.js", "icon.svg", "pools")}
    assert set(requested) == files | {page.removesuffix("/")}


def test_it_says_when_the_service_is_unreachable(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """When the service is unreachable the page says so, and keeps its last figures."""
    pool = make_pool(server.channel, name="left")
    with serve(inspect(pool)) as serving:
        browser.open(serving.url)
        live(browser)
    eventually(lambda: browser.texts("#pulse-text") == ["no answer"])
    assert browser.texts("h2") == ["left"]
    assert all("ERR_CONNECTION_REFUSED" in problem for problem in browser.problems())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_in_light_and_dark(
    browser: Browser, held: ChannelPool, dead_pool: ChannelPool, scheme: str
) -> None:
    """It follows the reader's preference for light or dark; in both, text has a contrast of at least 4.5."""
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


@pytest.mark.skipif(AXE is None, reason="GRPCPOOL_AXE is not the path of axe.min.js")
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Browser, held: ChannelPool, dead_pool: ChannelPool, scheme: str, width: int
) -> None:
    """The accessibility checker axe finds no violation, best practices included."""
    browser.prefer(color_scheme=scheme)
    with page_of(browser, inspect(held, dead_pool), width=width):
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert AXE is not None
        browser.run(pathlib.Path(AXE).read_text())
        found = browser.run_later("axe.run().then(arguments[0])")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_it_can_be_used_with_the_keyboard(browser: Browser, held: ChannelPool, dead_pool: ChannelPool) -> None:
    """Everything can be reached with Tab, in page order, with a visible focus that updates do not move."""
    with page_of(browser, inspect(held, dead_pool)):
        held.refresh()
        eventually(lambda: browser.texts("#pool-1 .events li"))
        stops = [browser.tab() for _ in range(8)]
        assert stops[:2] == ["A Skip to the pools", "BUTTON pause"]
        assert [stop.split()[1][:4] for stop in stops[2:4]] == ["held", "dead"]
        assert stops[4].startswith("DIV ")
        assert stops[5:] == [
            "SUMMARY Settings",
            "SUMMARY Connections closed so far",
            "SUMMARY The last minutes as a table",
        ]
        outline = (
            "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
        )
        assert browser.run(outline) == "solid2px"
        browser.press(Keys.ENTER)
        eventually(lambda: browser.texts("#pool-1 .as-table tbody td"))
        before = browser.texts("[data-text=since]"), browser.run("return performance.now()")
        eventually(lambda: browser.run("return performance.now()") > before[1] + 600)
        assert browser.run("return document.activeElement.textContent") == "The last minutes as a table"


def test_it_can_be_paused(browser: Browser, held: ChannelPool) -> None:
    """While paused the page requests nothing and does not change; afterwards it continues."""
    with page_of(browser, inspect(held)):
        browser.all("#pause")[0].click()
        eventually(lambda: browser.texts("#pulse-text") == ["paused"])
        began = browser.run("return performance.now()")
        browser.requested()
        eventually(lambda: browser.run("return performance.now()") > began + 600)
        assert browser.requested() == []
        browser.all("#pause")[0].click()
        live(browser)
        eventually(browser.requested)


def test_it_fits_a_narrow_screen(browser: Browser, held: ChannelPool, server: Server, make_pool: PoolMaker) -> None:
    """At 320 pixels nothing is cut off, and there is no need to scroll sideways."""
    long = make_pool(server.channel, name="a-rather-long-name-of-a-pool.production.europe-west.example.com:50051")
    held.refresh()
    with page_of(browser, inspect(held, long), width=320, height=640):
        eventually(lambda: "draining (refresh)" in browser.texts("td.state"))
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert browser.run("return document.documentElement.scrollWidth") == 320
        sides = "return [...document.querySelectorAll('.pool *')].map((each) => each.getBoundingClientRect().right)"
        assert max(browser.run(sides)) <= 320


def test_it_respects_reduced_motion(browser: Browser, held: ChannelPool) -> None:
    """Bars are animated, except for a reader who prefers reduced motion."""
    with page_of(browser, inspect(held)):
        assert browser.style(".bar-fill", "transition-duration") == "0.35s"
        browser.prefer(reduced_motion="reduce")
        assert browser.style(".bar-fill", "transition-duration") == "0s"


class OtherProcess(Inspector):
    """The inspector of another worker."""

    def document(self) -> PoolsDocument:
        """Its document, with the process id of another process."""
        document = super().document()
        document["process"]["pid"] = 1
        return document


class Workers:
    """Two workers behind one address, which answer in turn."""

    def __init__(self, *workers: Inspector) -> None:
        """Starts with the first of `workers`."""
        self._workers = list(workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the next one answer."""
        self._workers.append(self._workers.pop(0))
        await self._workers[0](scope, receive, send)


def test_one_of_several_workers_is_shown(browser: Browser, server: Server, make_pool: PoolMaker) -> None:
    """When several processes answer, the page shows one of them, says which, and lets the reader choose."""
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
