"""Runs the servers of the documentation's examples in their own processes."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

ORDERS = pathlib.Path(__file__).with_name("code") / "orders.py"

_LOCAL = re.compile(r"\blocalhost:(5005\d)\b")
# What the pages start on a port, with files that an earlier block has written.
_FILES = {"50052": ("server.pem", "server.key"), "50053": ("server.pem", "server.key", "ca.pem")}


@contextlib.contextmanager
def serving(*arguments: str, folder: pathlib.Path | None = None) -> Iterator[str]:
    """Runs the server of ``docs/code/orders.py`` in the folder; yields its address."""
    command = [sys.executable, str(ORDERS), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder) as process:  # noqa: S603 (our own script)
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said, "the server did not start"
        try:
            yield said
        finally:
            process.stdin.close()
            process.wait(timeout=10)


class Addresses:
    """Replaces the addresses of the pages' servers with those of servers that run, on ports that the system chose."""

    def __init__(self, plain: str, folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
        """Those that need files are started in the `folder` when a block names them, and end with the `stack`."""
        self._folder = folder
        self._stack = stack
        self._known = {"50051": plain}

    def replace(self, source: str) -> str:
        """Returns a block with these addresses."""
        return _LOCAL.sub(lambda match: self._address(match[1]), source)

    def _address(self, port: str) -> str:
        if port not in self._known:
            serves = serving("0", *_FILES[port], folder=self._folder)
            self._known[port] = self._stack.enter_context(serves)
        return self._known[port]
