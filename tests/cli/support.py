"""Servers for the tests of the commands, and a helper that runs a command."""

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
from support.servers import dead_target, forked_server

HERE = pathlib.Path(__file__).parent
CERTIFICATE = HERE.parent / "support" / "certs" / "localhost.crt"
KEY = CERTIFICATE.with_suffix(".key")
COMMAND = [sys.executable, "-W", "error", "-m", "grpcpool"]
CHECK = "grpc.health.v1.Health/Check"


def grpc_server(*arguments: str) -> AbstractContextManager[int]:
    """Runs a gRPC server; yields its port."""
    return forked_server("cli.grpc_server_script", *arguments)


def tcp_server(greeting: str) -> AbstractContextManager[int]:
    """Runs a TCP server that sends this to each client; yields its port."""
    return running_server([str(HERE / "tcp_server_script.py"), greeting])


def h2_server(announced: int) -> AbstractContextManager[int]:
    """Runs a small HTTP/2 server that announces this stream limit; yields its port."""
    return forked_server("support.refusing_server_script", f"--announce={announced}")


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Yields a port on which no server listens; the port is reserved meanwhile."""
    with dead_target() as target:
        yield int(target.rpartition(":")[2])


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, parsed as JSON."""
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The single line on standard error."""
        (line,) = self.err.splitlines()
        return line


@dataclasses.dataclass(frozen=True)
class Commands:
    """Runs commands in this process."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> CommandResult:
        """Runs one command."""
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return CommandResult(code, *self.capture.readouterr())
