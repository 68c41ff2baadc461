"""The inspector's page when the server does not answer."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from components.programs import program
from contrib.inspector.documents import TROUBLES, Changed, crowd, history, restart
from contrib.inspector.pages import CONTRAST, inspect, live
from grpcpool import ChannelPool
from grpcpool.contrib.inspector import Inspector, Served, serve
from support.browser import Browser
from support.waiting import eventually

RED, INK, DIM = "rgb(179, 38, 30)", "rgb(23, 32, 43)", "rgb(96, 107, 120)"
OLD = re.compile(r"No response: the values are (\d+) s old\.")
FIGURE = "[data-figure=in_flight]"
LISTEN = """
    window.heard = [];
    const place = document.getElementById("announcements");
    new MutationObserver(() => window.heard.push(place.textContent)).observe(place, { childList: true });
"""
GONE, BACK = "No response from the server: the values are old.", "The values are live again."


def age(browser: Browser) -> int:
    """Returns how old the page says that the values are, in seconds; 0 if it does not say so."""
    found = OLD.fullmatch(browser.texts("#stale")[0])
    return int(found[1]) if found else 0


def only_refusals(browser: Browser) -> None:
    """The browser logged nothing except that the server was unreachable."""
    assert [each for each in browser.problems() if "ERR_CONNECTION_REFUSED" not in each] == []


def test_old_values_are_dimmed_until_the_server_is_back(browser: Browser, held: ChannelPool) -> None:
    """Without an answer the values turn grey and the page says how old they are; screen readers hear it once."""
    inspector = inspect(held)
    with serve(inspector) as serving:
        browser.open(serving.url)
        live(browser)
        browser.run(LISTEN)
        assert browser.style(FIGURE, "color") == INK
        assert not browser.all("#stale")[0].is_displayed()
    eventually(lambda: age(browser) >= 2)
    assert browser.all("#stale")[0].is_displayed()
    assert browser.texts("#status-text") == ["no response"]
    for part in (FIGURE, "[data-figure=waiting]", "td.state", ".waits dd", ".events .what b"):
        assert browser.all(part) == [] or browser.style(part, "color") == DIM, part
    assert browser.style(".bar-fill", "fill") != "rgb(59, 134, 207)"
    assert browser.style("#stale", "color") == RED
    assert browser.texts(FIGURE) == ["7"]
    eventually(lambda: age(browser) >= 4)
    assert browser.run("return window.heard") == [GONE]
    only_refusals(browser)
    with serve(inspector, urlsplit(serving.url).port or 0):
        live(browser)
        eventually(lambda: browser.style(FIGURE, "color") == INK)
        assert not browser.all("#stale")[0].is_displayed()
        assert browser.run("return window.heard") == [GONE, BACK]
        browser.leave()
    only_refusals(browser)


class Stalling:
    """An inspector that can stop answering."""

    def __init__(self, inspector: Inspector) -> None:
        """Answers at first."""
        self._inspector = inspector
        self.stalls = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on when it may."""
        while self.stalls.is_set():  # noqa: ASYNC110 -- set by another thread
            await asyncio.sleep(0.01)
        await self._inspector(scope, receive, send)


def test_a_server_that_hangs_is_noticed(browser: Browser, held: ChannelPool) -> None:
    """A server that accepts requests and does not answer is as one that is gone, before the request times out."""
    app = Stalling(inspect(held))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    with Served(server, socket.create_server(("127.0.0.1", 0))) as serving:
        browser.open(serving.url)
        live(browser)
        app.stalls.set()
        assert eventually(lambda: age(browser), 5.0) < 5
        assert browser.texts("#status-text") == ["no response"]
        assert browser.style(FIGURE, "color") == DIM
        app.stalls.clear()
        live(browser)
        eventually(lambda: browser.style(FIGURE, "color") == INK)
        browser.leave()


def test_a_paused_page_is_not_dimmed(browser: Browser, held: ChannelPool) -> None:
    """Values that are old because the reader paused the page are not dimmed, also not in the moment it continues."""
    with serve(inspect(held)) as serving:
        browser.open(serving.url)
        live(browser)
        browser.run(LISTEN)
        browser.all("#pause")[0].click()
        began = browser.run("return performance.now()")
        eventually(lambda: browser.run("return performance.now()") > began + 3000)
        assert browser.style(FIGURE, "color") == INK
        browser.all("#pause")[0].click()
        live(browser)
        assert browser.run("return window.heard") == []
        browser.leave()


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_old_values_are_legible(browser: Browser, held: ChannelPool, scheme: str, width: int) -> None:
    """Dimmed, the text still has a contrast of at least 4.5, and axe finds no problems."""
    browser.prefer(color_scheme=scheme)
    with serve(Changed(held, crowd(TROUBLES), history, restart)) as serving:
        browser.open(serving.url, width=width)
        live(browser)
    eventually(lambda: age(browser))
    assert browser.run(CONTRAST) == []
    assert browser.violations(program("axe.min.js")) == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    browser.leave()
    only_refusals(browser)
