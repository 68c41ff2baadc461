"""Every block of code in the pages, and in the README, does what the page says. One test for each page.

The blocks of a page run in their order, in one namespace and one folder:

``python``
    runs. If its first line is a comment with the name of a file, it is saved under
    that name instead, for later blocks.
``console``
    contains commands, on lines that begin with ``$``, which a shell runs. The lines below, if any, are the output.
``output``
    is what the ``python`` block before it prints. Here and in a console, ``...`` stands for anything.
``json``
    is parsed. A ``text`` is ignored.

Every other block is run, unless a comment before it gives a reason: ``<!--- skip: next "reason" -->``. Nothing is
defined before the first block. Real servers listen at ``localhost:50051``, over TLS at ``localhost:50052``, and for
clients with a certificate at ``localhost:50053``, once the page has created the files.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from orders_servers import ORDERS, Addresses
from prometheus_client import REGISTRY
from sybil import Document, Example, Region, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser

import grpcpool
from grpcpool.contrib.prometheus import PoolCollector

DOCS = pathlib.Path(__file__).parent
README = DOCS.parent / "README.md"
# The decisions are records, and have no examples.
PAGES = [
    README,
    *(page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] not in ("_build", "decisions")),
]
PATIENCE = 60

_FILE = re.compile(r"# (\w+\.py)\n")


class Page:
    """A page whose blocks are run."""

    def __init__(self, folder: pathlib.Path, addresses: Addresses) -> None:
        """In `folder`, with servers at `addresses`."""
        self._folder = folder
        self._addresses = addresses
        self._printed = ""
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self, example: Example) -> None:
        """Runs one block."""
        source = self._addresses.replace(str(example.parsed))
        match example.region.lexemes["arguments"]:
            case "python":
                self._python(source, example)
            case "console":
                self._console(source)
            case "output":
                self._compare(source, self._printed)
            case "json":
                json.loads(source)
            case "text":
                pass
            case "sh":
                # .ci/run installs and runs it, in a fresh environment.
                assert example.path == str(README), "outside of the README, say console"
            case other:
                pytest.fail(f"{example.path}, line {example.line}: a block of {other} is not run, and gives no reason")

    def _python(self, source: str, example: Example) -> None:
        if named := _FILE.match(source):
            (self._folder / named[1]).write_text(source)
            return
        padded = "\n" * (example.line + example.parsed.line_offset) + source
        code = compile(padded, example.path, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.namespace)  # noqa: S102 (the examples are ours)
        self._printed = printed.getvalue()

    def _console(self, source: str) -> None:
        commands = re.findall(r"^\$ (.*)$", source, re.MULTILINE)
        expected = re.sub(r"^\$ .*\n", "", source, flags=re.MULTILINE)
        done = subprocess.run(  # noqa: S603 (the examples are ours)
            [shutil.which("bash") or "bash", "-euc", "\n".join(commands)],
            cwd=self._folder,
            env={**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{commands} failed:\n{done.stdout}{done.stderr}"
        if expected:
            self._compare(expected, done.stdout)

    def _compare(self, expected: str, printed: str) -> None:
        same = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert same, f"printed was:\n{printed}\nand not:\n{expected}"

    def close(self) -> None:
        """Closes what the page left open, as the end of a program does."""
        for value in self.namespace.values():
            if isinstance(value, grpcpool.ChannelPool):
                value.close(0)
            elif isinstance(value, PoolCollector):
                REGISTRY.unregister(value)
        self.namespace.clear()


class BlockParser(CodeBlockParser):
    """Finds the code blocks in all languages."""

    language = "any"

    def __init__(self, page: Page) -> None:
        """Runs them on `page`."""
        super().__init__()
        self._page = page

    def __call__(self, document: Document) -> Iterable[Region]:
        """Yields the blocks of a page, except those with a language in braces, which are Sphinx directives."""
        for region in self.lexers(document):
            if not region.lexemes["arguments"].startswith("{"):
                region.parsed = region.lexemes["source"]
                region.evaluator = self._page.run
                yield region


@pytest.fixture
def page(tmp_path: pathlib.Path, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page in its own folder, which contains `orders.py`."""
    shutil.copy(ORDERS, tmp_path)
    monkeypatch.chdir(tmp_path)
    # Not a setting of a pool, which a page may read from the environment.
    monkeypatch.delenv("GRPCPOOL_REQUIRE_COMPONENTS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = Page(tmp_path, addresses)
    try:
        yield page
    finally:
        page.close()
        sys.modules.pop("orders", None)


def documents(path: pathlib.Path, page: Page) -> Document:
    """The page at `path`, with its blocks."""
    return Sybil(parsers=[BlockParser(page), SkipParser()], path=str(path.parent)).parse(path)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS.parent)))
def test_page(path: pathlib.Path, page: Page) -> None:
    """Each block of the page does what the page says, in reading order."""
    for example in documents(path, page).examples():
        # Sybil raises this for a block that is skipped, with its reason.
        with contextlib.suppress(unittest.SkipTest):
            example.evaluate()


def test_a_block_that_is_wrong_fails(page: Page, tmp_path: pathlib.Path) -> None:
    """A page fails if a block raises, prints something else, or is in an unknown language."""
    for wrong in (
        "```python\nraise ValueError\n```\n",
        "```python\nprint(1)\n```\n\n```output\n2\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```json\n{\n```\n",
        "```toml\na = 1\n```\n",
    ):
        path = tmp_path / "wrong.md"
        path.write_text(wrong)
        with pytest.raises((Exception, pytest.fail.Exception)):
            test_page(path, page)
