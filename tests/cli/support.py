"""Servers for the tests of the commands, and a way to run a command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from grpcpool.__main__ import main
from grpcpool._demo.process import running_server
from support.refusing_server import RefusingServer
from support.servers import dead_target

HERE = pathlib.Path(__file__).parent
CERTIFICATE = HERE.parent / "support" / "certs" / "localhost.crt"
KEY = CERTIFICATE.with_suffix(".key")
COMMAND = [sys.executable, "-W", "error", "-m", "grpcpool"]
CHECK = "grpc.health.v1.Health/Check"


def grpc_server(*arguments: str) -> AbstractContextManager[int]:
    """A gRPC server; yields its port."""
    return running_server([str(HERE / "server_script.py"), *arguments])


def plain_server(says: str) -> AbstractContextManager[int]:
    """A TCP server that sends this; yields its port."""
    return running_server([str(HERE / "plain_script.py"), says])


def h2_server(announced: int) -> AbstractContextManager[int]:
    """A small HTTP/2 server that announces this many streams; yields its port."""
    return running_server([str(RefusingServer.script), f"--announce={announced}"])


@contextlib.contextmanager
def no_server() -> Iterator[int]:
    """Yields a port without a listener, which no other program can take."""
    with dead_target() as target:
        yield int(target.rpartition(":")[2])


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, parsed as JSON."""
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line of its error output."""
        (line,) = self.err.splitlines()
        return line


@dataclasses.dataclass(frozen=True)
class Commands:
    """Runs commands in this process."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Ended:
        """Runs one command."""
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *self.capture.readouterr())
