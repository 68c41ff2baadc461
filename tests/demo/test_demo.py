"""The demonstration, as users run it."""

from __future__ import annotations

import dataclasses
import io
import re
import signal
import subprocess
import sys

import pytest

from grpcpool.__main__ import main
from grpcpool._demo import run
from grpcpool._demo.burst import TIMED_OUT, Burst
from grpcpool._demo.leases import LeaseResults
from grpcpool._demo.screen import Screen
from grpcpool._demo.tcp_connections import ports_of_netstat, ports_of_proc
from support.fakes import FakeChannel
from support.pools import PoolMaker

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
_SCALING, _POOL = "gRPC's scaling", "grpcpool"
_COMMAND = [sys.executable, "-W", "error", "-m", "grpcpool", "demo"]
# The same command, except that it takes longer to give up: the machine may be busy with something else. And each way to
# call is measured for a shorter time, because only that calls were completed, and how, is looked at.
_PATIENT = (
    "import runpy; from grpcpool._demo import call_counter, run; run._TIME_LIMIT = 90; call_counter.MEASURED = 0.4;"
    "runpy.run_module('grpcpool', None, '__main__')"
)
_PATIENT_COMMAND = [sys.executable, "-W", "error", "-c", _PATIENT, "demo"]


@dataclasses.dataclass(frozen=True)
class Output:
    """The output of the demonstration in one of its worlds."""

    text: str
    workers: str
    channel: str

    def number(self, row: str) -> int:
        """Returns the first number in a row of a table."""
        match = re.search(rf"^{re.escape(row)} +(\d+)\b", self.text, re.MULTILINE)
        assert match is not None, f"no row {row!r} in:\n{self.text}"
        return int(match[1])


@pytest.fixture(
    scope="module",
    params=[([], "threads", "grpc.Channel"), (["--aio"], "tasks", "grpc.aio.Channel")],
    ids=["threads", "aio"],
)
def output(request: pytest.FixtureRequest) -> Output:
    """The demonstration's output, with threads and with asyncio."""
    options, workers, channel = request.param
    command = [*_PATIENT_COMMAND, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)  # noqa: S603 -- our own
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Output(done.stdout, workers, channel)


def test_it_names_threads_or_tasks(output: Output) -> None:
    """The default is threads, `--aio` uses tasks; both parts name them."""
    assert f"Leases: 200 {output.workers} at once acquire" in output.text
    assert f"Calls: 400 {output.workers} make calls of 50 ms" in output.text


def test_it_loses_nothing_and_reuses_connections(output: Output) -> None:
    """Every lease is released, connections are reused, and idle and aged ones are closed."""
    leases = {row: output.number(row) for row in _LEASES}
    assert leases["lost"] == 0
    assert leases["acquired"] + leases["timed out"] == 200
    assert leases["timed out"] > 0
    assert leases["reused"] == leases["acquired"] - leases["connections opened"] > 0
    assert leases["closed as idle"] > 0
    assert leases["closed as aged"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="connections may not be countable on this platform")
def test_it_counts_connections_from_outside(output: Output) -> None:
    """During the burst all eight connections are open, and beside them successors of aged ones; afterwards two.

    Each connection after the eighth is a successor. How many there are depends on how long the burst takes. An aged
    connection may be closed as idle once its successor is being opened, so that `closed as aged` may be less.
    """
    assert 8 <= output.number("open at peak") <= output.number("connections opened")
    assert output.number("open at the end") == 2


def test_no_call_on_the_pool_fails(output: Output) -> None:
    """Each way to call has a row; the pool's has completed calls and no failures."""
    assert output.number(f"one {output.channel}") > 0
    assert output.number(_POOL) > 0
    assert re.search(rf"^{_SCALING} +(\d+ +\d+ |.*not supported by this grpcio$)", output.text, re.MULTILINE)
    assert re.search(rf"^{_POOL} +\d+ +0 ", output.text, re.MULTILINE)


def test_without_a_terminal_progress_is_lines(output: Output) -> None:
    """Without a terminal, progress is printed as lines and never redrawn."""
    assert "\r" not in output.text
    assert re.search(r"^ +\d+\.\d s  \[#+.*\]  in use \d", output.text, re.MULTILINE)


def test_a_lease_that_is_not_released_is_lost(make_pool: PoolMaker) -> None:
    """Leases that were not released count as lost, and so does what is left after the close."""
    burst = Burst(0, Screen(io.StringIO()))
    pool = make_pool(FakeChannel, max_size=2)
    lease = pool.acquire()
    with burst.watch(pool):
        pass
    lease.release()
    burst.outcomes[TIMED_OUT] += 1
    assert LeaseResults(burst, {"connections": 0}).lost == 1
    assert LeaseResults(burst, {"connections": 2, "threads": 1}).lost == 4


def test_problems_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The problems of each part are printed at the end, and the exit code is 1."""
    monkeypatch.setattr(run, "PARTS", [lambda world, screen: ["a lease was lost"], lambda world, screen: []])
    out = io.StringIO()
    assert run.run_demo(out) == 1
    assert out.getvalue() == "failed: a lease was lost\n"


def test_it_ends_by_itself() -> None:
    """If a part hangs, the demonstration says so and exits with 1."""
    program = (
        "import sys, threading; from grpcpool._demo import run; run._TIME_LIMIT = 0.01;"
        "run.PARTS = [lambda world, screen: threading.Event().wait()]; sys.exit(run.run_demo(sys.stdout))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 -- our own
    assert (done.returncode, done.stdout) == (1, "failed: not finished within 0 s\n")


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGINT")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("options", [[], ["--aio"]], ids=["threads", "aio"])
def test_it_can_be_interrupted(options: list[str]) -> None:
    """Ctrl-C during the burst ends it with 130, without error messages."""
    with subprocess.Popen([*_COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
        assert process.stdout is not None
        assert any("in use 8" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names the commands and exits with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_help_of_the_demonstration_names_asyncio(capsys: pytest.CaptureFixture[str]) -> None:
    """`demo --help` has the option `--aio`."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    assert "--aio" in capsys.readouterr().out


def test_without_a_command_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command it prints the help, as with `--help`."""
    assert main([]) == 0
    assert "usage: grpcpool" in capsys.readouterr().out.lower()


def test_an_unknown_command_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command exits with 2, and the error names the valid ones."""
    with pytest.raises(SystemExit) as ended:
        main(["dmeo"])
    assert ended.value.code == 2
    assert "demo" in capsys.readouterr().err


def test_proc_is_parsed() -> None:
    """In /proc/net/tcp, established connections count by their remote port."""
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:C350 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0",
        "   1: 0100007F:8258 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4",
        "   2: 0100007F:8259 0100007F:C350 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4",
    ]
    assert list(ports_of_proc(lines)) == [0xC350]


def test_netstat_is_parsed() -> None:
    """In netstat's output, in the formats of Linux, macOS and Windows, the same connections count."""
    lines = [
        "tcp        0      0 127.0.0.1:33368         127.0.0.1:50000         ESTABLISHED",
        "tcp4       0      0  127.0.0.1.54321        127.0.0.1.50001        ESTABLISHED",
        "  TCP    127.0.0.1:54321        127.0.0.1:50002        ESTABLISHED",
        "tcp6       0      0 ::1:33370               ::1:50003               ESTABLISHED",
        "tcp        0      0 127.0.0.1:33369         127.0.0.1:50000         TIME_WAIT",
        "udp        0      0 127.0.0.1:33369         127.0.0.1:50000         ESTABLISHED",
    ]
    assert list(ports_of_netstat(lines)) == [50000, 50001, 50002, 50003]
