"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.support import Commands, grpc_server


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Runs commands as on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERMINAL_WIDTH", "160")
    return Commands(capsys)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a gRPC server with health, reflection and a limit of 100 streams."""
    with grpc_server("--streams=100") as port:
        yield port
