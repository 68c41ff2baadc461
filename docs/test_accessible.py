"""The pages as `nox -s docs` has built them, in a real browser."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

import grpcpool
from components.programs import program
from support.browser import Browser

BUILT = pathlib.Path(__file__).parent / "_build" / "html"
# Of each kind of page, one.
PAGES = ("index", "howto/tls", "reference/api/leases", "reference/errors", "states", "search")

pytestmark = pytest.mark.skipif(not BUILT.exists(), reason="nox -s docs builds the pages first")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; it closes with the last test."""
    with Browser(program("chromium"), program("chromedriver")) as browser:
        yield browser


@pytest.mark.parametrize(
    ("scheme", "page"), [*(("light", page) for page in PAGES), ("dark", "index"), ("dark", "states")]
)
def test_axe_finds_no_problems(browser: Browser, scheme: str, page: str) -> None:
    """The accessibility checker axe finds no problems, best practices included."""
    browser.prefer(color_scheme=scheme)
    browser.open((BUILT / f"{page}.html").as_uri())
    assert browser.violations(program("axe.min.js")) == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_code_is_cut_off(browser: Browser, width: int) -> None:
    """On a phone and on a desk, no block of code is wider than its place on the page."""
    for page in PAGES:
        browser.open((BUILT / f"{page}.html").as_uri(), width=width)
        too_wide = "each => each.scrollWidth > each.clientWidth + 1"
        assert browser.run(f"return [...document.querySelectorAll('pre')].filter({too_wide}).length") == 0, page


def test_the_search_finds_each_public_name() -> None:
    """The index of the search has each class, function and error of the package."""
    index = (BUILT / "searchindex.js").read_text(encoding="utf-8")
    assert [name for name in grpcpool.__all__ if f'"{name}"' not in index] == []
