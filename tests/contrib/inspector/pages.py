"""Opens the inspector's page in the browser."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from grpcpool import ChannelPool
from grpcpool.contrib.inspector import Inspector, serve
from support.browser import Browser
from support.waiting import eventually

CONTRAST = (pathlib.Path(__file__).parent / "contrast.js").read_text()


def live(browser: Browser) -> None:
    """Waits until the page is live."""
    eventually(lambda: browser.texts("#status-text") == ["live"])


def inspect(*pools: ChannelPool) -> Inspector:
    """Returns an inspector with a short interval."""
    return Inspector(*pools, every=0.25, keep=60.0)


@contextlib.contextmanager
def page_of(browser: Browser, inspector: Inspector, **screen: int) -> Iterator[None]:
    """Opens the page; leaves it before its server stops."""
    with serve(inspector) as serving:
        browser.open(serving.url, **screen)
        live(browser)
        try:
            yield
        finally:
            browser.leave()
