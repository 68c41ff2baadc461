"""Completes what the theme leaves out for readers who use a screen reader or a keyboard, in the pages as written.

A Sphinx extension. `docs/test_accessible.py` checks the result with axe.
"""

from __future__ import annotations

import pathlib

from sphinx.application import Sphinx
from sphinx.util import logging

# What the theme writes, and what replaces it.
REPLACED = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    ('<aside class="toc-drawer">', '<aside class="toc-drawer" aria-label="On this page">'),
    (
        '<div class="content-icon-container">',
        '<div class="content-icon-container" role="navigation" aria-label="View">',
    ),
    # It can be wider than the page, and must scroll with the keyboard.
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ('<div id="search-results">', '<h1>Search</h1>\n<div id="search-results">'),
)


def complete(app: Sphinx, exception: Exception | None) -> None:
    """Completes the pages that a build has written; warns if the theme no longer writes what is replaced."""
    if exception is not None or app.builder.name != "html":
        return
    missing = {old for old, _ in REPLACED}
    for path in pathlib.Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        missing -= {old for old, new in REPLACED if old in page or new in page}
        for old, new in REPLACED:
            # A page that this build has not written again is complete already.
            if new not in page:
                page = page.replace(old, new)
        path.write_text(page, encoding="utf-8")
    for old in sorted(missing):
        logging.getLogger(__name__).warning("the theme no longer writes %s", old)


def setup(app: Sphinx) -> None:
    """Registers it."""
    app.connect("build-finished", complete)
