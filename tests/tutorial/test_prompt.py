"""The tutorial is pasted, block by block, at the prompt of Python in a terminal, as its readers do."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pexpect
import pytest
from orders_servers import ORDERS, Addresses, serving

TUTORIAL = pathlib.Path(__file__).parents[2] / "docs" / "tutorial.md"
PATIENCE = 60

pytestmark = pytest.mark.timeout(180)

_BLOCK = re.compile(r"^(<!--- skip[^\n]*\n)?```(python|console|output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")
_FAILED = re.compile(r"Traceback|SyntaxError|IndentationError|  File ")
# The prompt of Python 3.13 and later takes a paste as one input; earlier ones take it line by line.
_TAKES_PASTE = sys.version_info >= (3, 13)
_ENTER = "\r" if _TAKES_PASTE else "\n"


class Prompt:
    """Python's prompt in a terminal."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Starts it in the folder."""
        environment = {**os.environ, "TERM": "xterm", "HOME": str(folder), "PYTHON_HISTORY": str(folder / "history")}
        for name in ("PYTHONSTARTUP", "PYTHON_BASIC_REPL", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self._terminal = pexpect.spawn(
            sys.executable,
            ["-q"],
            cwd=str(folder),
            env=environment,
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=(50, 300),
        )
        self._terminal.expect_exact(">>> ")
        self._pasted = 0

    def paste(self, block: str, enters: int = 1) -> list[str]:
        """Pastes a block, presses Enter, and returns the lines that are on the screen when it has been executed."""
        self._pasted += 1
        pasted = f"\x1b[200~{block}\x1b[201~" if _TAKES_PASTE else block
        # The sum distinguishes what it prints from what was typed. All of it is typed while Python waits for it: what
        # comes while a statement is executed is shown at once, in the middle of a line that the statement prints.
        self._terminal.send(f'{pasted}{_ENTER * enters}print("pasted block", 1000 + {self._pasted}){_ENTER}')
        self._terminal.expect_exact(f"pasted block {1000 + self._pasted}")
        shown = _ESCAPES.sub("", self._terminal.before or "").splitlines()
        self._terminal.expect_exact(">>> ")
        return shown

    def close(self) -> str:
        """Ends Python as a reader does; returns what it printed."""
        self._terminal.send(f"exit(){_ENTER}")
        self._terminal.expect(pexpect.EOF)
        self._terminal.close()
        assert self._terminal.exitstatus == 0
        return _ESCAPES.sub("", self._terminal.before or "")


@pytest.fixture
def addresses(tmp_path: pathlib.Path) -> Iterator[Addresses]:
    """The servers of the tutorial."""
    with contextlib.ExitStack() as stack:
        yield Addresses(stack.enter_context(serving()), tmp_path, stack)


@pytest.mark.parametrize("whole", [True, False], ids=["whole blocks", "without the last newline"])
def test_the_tutorial_at_the_prompt(tmp_path: pathlib.Path, addresses: Addresses, *, whole: bool) -> None:
    """Each block is accepted as it was pasted, prints what the page says, and Python ends quietly.

    Copied by hand it often lacks its last newline: then `>>>` is shown again after one Enter more.
    """
    (tmp_path / "orders.py").write_text(ORDERS.read_text(encoding="utf-8"), encoding="utf-8")
    prompt = Prompt(tmp_path)
    shown: list[str] = []
    for skipped, language, block in _BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        if skipped:
            continue
        if language == "python":
            source = addresses.replace(block)
            shown = prompt.paste(source) if whole else prompt.paste(source.removesuffix("\n"), enters=2)
            assert not [line for line in shown if _FAILED.match(line)], shown
        elif language == "console":
            commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
            subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=tmp_path, check=True, timeout=PATIENCE)  # noqa: S603, S607
        else:
            expected = addresses.replace(block).splitlines()
            assert_shown(expected, shown)
    assert "Error" not in prompt.close()


def assert_shown(expected: list[str], shown: list[str]) -> None:
    """Each expected line was printed, in this order; ``...`` stands for anything."""
    lines = iter(shown)
    for wanted in expected:
        pattern = re.compile(".*".join(map(re.escape, wanted.split("..."))))
        assert any(pattern.fullmatch(line.removeprefix(">>> ")) for line in lines), "\n".join(
            [wanted, "is not in", *shown]
        )
