"""The demonstration, as its users run it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from grpcpool.__main__ import main
from grpcpool._demo.tcp import ports_of_netstat, ports_of_proc

_LEASES = (
    "acquired",
    "waited",
    "timed out",
    "connections opened",
    "open at peak",
    "reused",
    "closed as idle",
    "closed as aged",
    "open at the end",
    "lost",
)
_CALLS = ("one grpc.Channel", "gRPC's scaling", "grpcpool")


@pytest.fixture(scope="module")
def told() -> str:
    """What the demonstration says."""
    command = [sys.executable, "-W", "error", "-m", "grpcpool", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 -- our own
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def _number(told: str, row: str) -> int:
    """The first number of a row of a table."""
    match = re.search(rf"^{re.escape(row)} +(\d+)\b", told, re.MULTILINE)
    assert match is not None, f"no row {row!r} in:\n{told}"
    return int(match[1])


def test_it_loses_nothing_and_reuses_connections(told: str) -> None:
    """Every lease comes back, and connections serve many; what idles or ages is closed."""
    leases = {row: _number(told, row) for row in _LEASES}
    assert leases["lost"] == 0
    assert leases["acquired"] + leases["timed out"] == 200
    assert leases["timed out"] > 0
    assert leases["reused"] == leases["acquired"] - leases["connections opened"] > 0
    assert leases["closed as idle"] > 0
    assert leases["closed as aged"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere connections may not be countable")
def test_it_counts_connections_from_outside(told: str) -> None:
    """The burst has all eight connections open, a few successors aside; the quiet after it two."""
    assert 8 <= _number(told, "open at peak") <= 10
    assert _number(told, "open at the end") == 2


def test_no_call_on_the_pool_fails(told: str) -> None:
    """Each way of calling has its row; the pool's says that calls were completed, and that none failed."""
    for way in _CALLS[::2]:
        assert _number(told, way) > 0
    assert re.search(rf"^{_CALLS[1]} +(\d+ +\d+ |.*not in this grpcio$)", told, re.MULTILINE)
    assert re.search(r"^grpcpool +\d+ +0 ", told, re.MULTILINE)


def test_what_is_no_terminal_gets_lines(told: str) -> None:
    """Progress is told in lines, and redrawn nowhere."""
    assert "\r" not in told
    assert re.search(r"^ +\d+\.\d s  \[#+.*\]  in use \d", told, re.MULTILINE)


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names the commands and ends well."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_no_command_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command it explains itself, as with `--help`."""
    assert main([]) == 0
    assert "usage: grpcpool" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command ends with 2 and names those that there are."""
    with pytest.raises(SystemExit) as ended:
        main(["dmeo"])
    assert ended.value.code == 2
    assert "demo" in capsys.readouterr().err


def test_proc_is_understood() -> None:
    """Of the lines of /proc/net/tcp those count that are established, by the remote port."""
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:C350 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0",
        "   1: 0100007F:8258 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4",
        "   2: 0100007F:8259 0100007F:C350 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4",
    ]
    assert list(ports_of_proc(lines)) == [0xC350]


def test_netstat_is_understood() -> None:
    """The lines of netstat count alike, in the ways that Linux, macOS and Windows print them."""
    lines = [
        "tcp        0      0 127.0.0.1:33368         127.0.0.1:50000         ESTABLISHED",
        "tcp4       0      0  127.0.0.1.54321        127.0.0.1.50001        ESTABLISHED",
        "  TCP    127.0.0.1:54321        127.0.0.1:50002        ESTABLISHED",
        "tcp6       0      0 ::1:33370               ::1:50003               ESTABLISHED",
        "tcp        0      0 127.0.0.1:33369         127.0.0.1:50000         TIME_WAIT",
        "udp        0      0 127.0.0.1:33369         127.0.0.1:50000         ESTABLISHED",
    ]
    assert list(ports_of_netstat(lines)) == [50000, 50001, 50002, 50003]
