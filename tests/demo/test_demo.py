"""The demonstration, as users run it."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import time

import pytest

import grpcpool
from grpcpool.__main__ import main
from grpcpool._demo import limit, run
from grpcpool._demo.burst import CONFIG, TIMED_OUT, Burst
from grpcpool._demo.call_counter import CallCounter
from grpcpool._demo.leases import LeaseResults, peak_text, show_leases
from grpcpool._demo.screen import Screen
from grpcpool._demo.tcp_connections import ports_of_netstat, ports_of_proc
from grpcpool._demo.threads import Threads
from grpcpool._demo.world import World
from support.fakes import FakeChannel
from support.pools import PoolMaker
from support.servers import Server
from support.waiting import eventually

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
_COUNTS_CONNECTIONS = sys.platform == "linux"


@dataclasses.dataclass(frozen=True)
class Output:
    """The output of the demonstration in one of its worlds."""

    text: str
    workers: str

    def number(self, row: str) -> int:
        """Returns the first number in a row of a table."""
        match = re.search(rf"^{re.escape(row)} +(\d+)\b", self.text, re.MULTILINE)
        assert match is not None, f"no row {row!r} in:\n{self.text}"
        return int(match[1])

    def rows(self, name: str) -> list[list[str]]:
        """Returns the cells of the rows with that name, of all tables."""
        return [line.split() for line in re.findall(rf"^{re.escape(name)} +(\d.*)$", self.text, re.MULTILINE)]


def _names_threads_or_tasks(output: Output) -> None:
    """The default is threads, `--aio` uses tasks; the parts name them."""
    text = " ".join(output.text.split())
    assert f"300 {output.workers} make 2 calls each." in text
    assert f"12 {output.workers} each." in text
    assert f"120 {output.workers} lease a connection each" in text


def _loses_nothing_and_reuses_connections(output: Output) -> None:
    """Every lease is released, connections are reused, and idle and aged ones are closed."""
    leases = {row: output.number(row) for row in _LEASES}
    assert leases["lost"] == 0
    assert leases["acquired"] + leases["timed out"] == 120
    assert leases["timed out"] > 0
    assert leases["reused"] == leases["acquired"] - leases["connections opened"] > 0
    assert leases["closed as idle"] > 0
    assert leases["closed as aged"] > 0


def _counts_connections_from_outside(output: Output) -> None:
    """During the burst all eight connections are open, and beside them successors of aged ones; afterwards two.

    Each connection after the eighth is a successor, and the text says so. How many there are depends on how long the
    burst takes. An aged connection may be closed as idle once its successor is being opened, so that `closed as aged`
    may be less.
    """
    if not _COUNTS_CONNECTIONS:
        return
    peak = output.number("open at peak")
    assert 8 <= peak <= output.number("connections opened")
    said = re.search(r": 8 and (\d+) successors?$", output.text, re.MULTILINE)
    assert (int(said[1]) if said else 0) == peak - 8
    assert output.number("open at the end") == 2


def _no_call_on_the_pool_fails(output: Output) -> None:
    """Beyond the stream limit, each way has a row; no call on the pool fails, and some on the channel do."""
    of_pool, of_channel = output.rows(_POOL)[0], output.rows("one channel")[0]
    assert of_pool[:2] == ["600", "0"]
    assert of_channel[0] == "600"
    assert int(of_channel[1]) > 0
    assert re.search(rf"^{_SCALING} +(\d+ +\d+ |.*needs grpcio 1\.84$)", output.text, re.MULTILINE)


def _avoids_the_sick_server(output: Output) -> None:
    """The balancer sends a third of its calls to the sick server, the pool far fewer."""
    balancer, pool = output.rows("round_robin")[0], output.rows(_POOL)[1]
    assert balancer[0] == pool[0] == "450"
    assert int(balancer[1]) > 110
    assert int(pool[1]) < 55


def _uses_all_servers_after_restarts(output: Output) -> None:
    """After the restarts, calls are spread over all servers."""
    for name, row in (("round_robin", 1), (_POOL, 2)):
        _, _, *spread = output.rows(name)[row]
        assert sum(map(int, spread)) == 300
        assert min(map(int, spread)) > 0


def _prints_no_live_lines(output: Output) -> None:
    """Without a terminal nothing is drawn again, and there are no lines of progress; everything fits in 80 columns."""
    assert "\r" not in output.text
    assert not re.search(r"^ +\d+\.\d s ", output.text, re.MULTILINE)
    assert max(map(len, output.text.splitlines())) < 80


def _was_not_too_busy(output: Output) -> None:
    """Each part could be shown, also while other tests run."""
    assert "too busy" not in output.text
    assert "Nothing was lost" in output.text


@pytest.mark.parametrize(("options", "workers"), [([], "threads"), (["--aio"], "tasks")], ids=["threads", "aio"])
def test_the_demonstration(options: list[str], workers: str) -> None:
    """It shows each of its parts, loses nothing, and exits with 0 and without error messages.

    This is one test, so that the demonstration runs once in each world however tests are dealt out to processes.
    """
    done = subprocess.run([*_COMMAND, *options], capture_output=True, text=True, timeout=110, check=False)  # noqa: S603 -- our own
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    output = Output(done.stdout, workers)
    for check in (
        _names_threads_or_tasks,
        _loses_nothing_and_reuses_connections,
        _counts_connections_from_outside,
        _no_call_on_the_pool_fails,
        _avoids_the_sick_server,
        _uses_all_servers_after_restarts,
        _prints_no_live_lines,
        _was_not_too_busy,
    ):
        check(output)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [[], ["--aio"]], ids=["threads", "aio"])
def test_on_a_busy_machine_it_also_ends_well(options: list[str]) -> None:
    """While other programs keep all processors busy, it still ends with all tables and exits with 0."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        done = subprocess.run([*_COMMAND, *options], capture_output=True, text=True, timeout=200, check=False)  # noqa: S603 -- our own
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(Output(done.stdout, "").rows(_POOL)) == 3
    assert Output(done.stdout, "").number("lost") == 0


def test_a_pool_that_was_idle_has_shrunk() -> None:
    """Also if it opens connections again a moment later, as when it replaces them."""
    with Server() as server, grpcpool.insecure_channel(server.target, config=CONFIG) as pool:
        burst = Burst(server.port, Screen(io.StringIO()))
        with burst.watch(pool):
            for lease in [pool.acquire() for _ in range(CONFIG.max_size)]:
                lease.release()
            for seconds in burst.until_idle(pool):
                time.sleep(seconds)
            pool.resize(min_size=CONFIG.min_size + 1)
            eventually(lambda: pool.stats().size > CONFIG.min_size)
    assert (burst.idle, burst.stats.size) == (True, CONFIG.min_size)


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


@pytest.mark.parametrize(
    ("peak", "successors"), [(None, ""), (8, ""), (9, ": 8 and 1 successor"), (10, ": 8 and 2 successors")]
)
def test_successors_at_the_peak_are_named(peak: int | None, successors: str) -> None:
    """Connections beyond `max_size` are successors of aged ones: one, or several."""
    assert peak_text(peak) == f"counted by the operating system{successors}"


def test_a_call_without_an_outcome_is_lost(make_pool: PoolMaker) -> None:
    """A call that began and has no outcome is lost, and so is a place that is in use after the last call."""
    counter = CallCounter(2)
    phase = counter.take()
    assert phase is not None
    with phase.call() as answer:
        answer.append(b"1")
    assert counter.problems() == []
    assert counter.take() is phase
    assert counter.take() is None
    lease = (pool := make_pool(FakeChannel)).acquire()
    counter.at_rest = pool.stats()
    lease.release()
    assert counter.problems() == [
        "1 calls have no outcome",
        "1 in flight and 0 waiting after the last call",
    ]


def test_problems_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The problems of each part are printed at the end, and the exit code is 1."""
    monkeypatch.setattr(run, "PARTS", [lambda world, screen: ["a lease was lost"], lambda world, screen: []])
    out = io.StringIO()
    assert run.run_demo(out) == 1
    assert out.getvalue() == "failed: a lease was lost\n"


def test_calls_that_were_late_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that becomes too busy for calls of one length gets longer ones; it says so."""
    ways = {limit.ONE: None, limit.SCALING: None}
    monkeypatch.setattr(
        limit, "ways_of", lambda world: {**ways, limit.POOL: lambda target: world.pool(target, limit.CONFIG, "")}
    )
    monkeypatch.setattr(limit, "_calibrate", lambda world, port: [limit.Pace(0.0), limit.Pace(1.0), limit.Pace(2.0)])
    out = io.StringIO()
    assert limit.show_limit(Threads(), Screen(out)) == []
    text = " ".join(out.getvalue().split())
    assert "A call takes 0.0 s" in text
    assert "Once more: A call takes 1.0 s, and its caller waits at most 1.8 s." in text
    assert re.search(r"grpcpool 600 0 ", text)


def test_an_error_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a part raises an error, its table is shown as it is, and the error is a line. The other parts are shown."""

    def fails(_: World, screen: Screen) -> list[str]:
        screen.begin_table(lambda: screen.write("a table"))
        raise RuntimeError("a server ended")

    monkeypatch.setattr(run, "PARTS", [fails, lambda world, screen: screen.write("a part") or []])
    out = io.StringIO()
    assert run.run_demo(out) == 1
    assert out.getvalue() == "a table\na part\nfailed: RuntimeError: a server ended\n"


def test_an_error_before_there_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the burst of leases does not begin, the error that is reported is the reason."""

    class Broken(Threads):
        def run_leases(self, burst: Burst, name: str) -> int:
            raise OSError(f"no pool {name} for {burst.target[:9]}")

    monkeypatch.setattr(run, "PARTS", [lambda _world, screen: show_leases(Broken(), screen)])
    out = io.StringIO()
    assert run.run_demo(out) == 1
    assert out.getvalue().endswith("\nfailed: OSError: no pool leases for 127.0.0.1\n")


def test_without_time_for_it_a_part_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is too slow, the last parts are left out; that is not a failure."""
    monkeypatch.setattr(run, "PARTS", [lambda world, screen: ["not reached"]])
    monkeypatch.setattr(run, "_LAST_BEGINS", 0.0)
    out = io.StringIO()
    assert run.run_demo(out) == 0
    assert "This machine was too busy to show more." in out.getvalue()


def test_it_ends_by_itself() -> None:
    """If a part hangs, the demonstration shows its table as it is, says so, and exits with 1."""
    program = (
        "import sys, threading; from grpcpool._demo import run; run._TIME_LIMIT = 0.4\n"
        "def hang(world, screen):\n"
        "    screen.begin_table(lambda: screen.write('a table'))\n"
        "    threading.Event().wait()\n"
        "run.PARTS = [hang]; sys.exit(run.run_demo(sys.stdout))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 -- our own
    assert (done.returncode, done.stdout) == (1, "a table\nfailed: not finished within 0 s\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error on this platform")
@pytest.mark.parametrize("blocked", [(), ("typer",)], ids=["with_extra", "without_extra"])
@pytest.mark.parametrize("options", [[], ["--aio"]], ids=["threads", "aio"])
def test_it_ends_when_its_reader_does(options: list[str], blocked: tuple[str, ...]) -> None:
    """Piped into a program that ends, as ``head`` does, the demonstration ends silently with 1."""
    program = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name in {blocked!r} else find(name)\n"
        "from grpcpool.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-W", "error", "-c", program, "demo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(60), errors) == (1, "")


def test_it_needs_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code says whether something was lost, also if its standard output is closed."""
    monkeypatch.setattr(run, "PARTS", [lambda world, screen: screen.write("a part") or ["a lease was lost"]])
    assert run.run_demo(None) == 1
    monkeypatch.setattr(run, "PARTS", [lambda world, screen: screen.write("a part") or []])
    assert run.run_demo(None) == 0


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
    # So does the kernel if the table changes meanwhile.
    assert list(ports_of_proc([*lines, *lines])) == [0xC350]


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
