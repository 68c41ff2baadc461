"""What the tests of the documentation share: a server for the examples, in its own process."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.parallel import pytest_cmdline_main  # noqa: F401 -- a hook

_SERVER = pathlib.Path(__file__).with_name("code") / "orders.py"


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the server of ``docs/code/orders.py``."""
    command = [sys.executable, str(_SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own script)
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said, "the server did not start"
        try:
            yield said
        finally:
            process.stdin.close()
            process.wait(timeout=10)
