"""The servers of the soak: they bear many calls, send GOAWAY to connections of some age, and say what they run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Self

import support.servers
from support.servers import unary

_SCRIPT = pathlib.Path(__file__).with_name("server_script.py")


class Server(support.servers.Server):
    """A server on asyncio. Of the methods it has Slow, Fail, Count, Collect and Chat."""

    def __init__(self, *, age: float, limit: int | None = None) -> None:
        """Does not start it yet.

        Args:
            age: Seconds after which it tells a connection to go away.
            limit: Calls on one connection beyond which it refuses them.
        """
        super().__init__()
        self.limit = limit
        self._options = {"max_connection_age_ms": round(age * 1000)}
        if limit is not None:
            self._options["max_concurrent_streams"] = limit

    def start(self) -> Self:
        """Serves when this returns."""
        options = [f"--option=grpc.{name}={value}" for name, value in self._options.items()]
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            [sys.executable, str(_SCRIPT), f"--port={self.port}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.strip().isdigit(), f"the server did not start: {said!r}"
        self.port = int(said)
        return self

    def running(self) -> int:
        """How many calls it runs, those included that nobody waits for any more."""
        with self.channel() as channel:
            return int(unary(channel, "/test.Test/Running", b""))
