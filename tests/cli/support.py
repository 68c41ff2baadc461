"""Servers for the tests of the commands, and a helper that runs a command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from xml.etree import ElementTree as ET

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
class Figure:
    """A plot of a report: the title and description that screen readers read, and the names of the lines."""

    title: str
    description: str
    names: list[str]


def figures_of(page: str) -> dict[str, Figure]:
    """Returns the plots of a report by their ids; fails if one is not well-formed XML."""
    figures = {}
    for text in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        svg = ET.fromstring(text)  # noqa: S314 -- our own
        title, description = (svg.findtext(name) or "" for name in ("title", "desc"))
        labels = {element.get("id"): element.text for element in svg if element.get("id")}
        assert [labels[name] for name in svg.attrib["aria-labelledby"].split()] == [title, description]
        names = [group.findtext("title") or "" for group in svg.iter("g") if group.find("title") is not None]
        legend = [element.text for element in svg.findall("text")]
        assert set(names) <= set(legend)
        figures[svg.attrib["id"]] = Figure(title, description, names)
    return figures


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
