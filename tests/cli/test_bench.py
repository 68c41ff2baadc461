"""`grpcpool bench` against a real server."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cli.support import CERTIFICATE, CHECK, HERE, Commands, figures_of, grpc_server, unused_port
from grpcpool._demo.limit import scaling_options
from grpcpool.cli._bench import load

_QUICK = ("--duration=0.7", "--warmup=0.05")
# A busy machine may need several tries.
_TRIES = 10
_LATENCIES = ("p50", "p90", "p99", "p99.9", "max", "mean")
_PROTO = HERE / "counting.proto"

# Runs the command, and prints a line when the first call on the pool has been counted.
_ANNOUNCES_POOL = """
import sys
from grpcpool.__main__ import main
from grpcpool.cli._bench import run

measure, announced = run.measure, []

def announce(recorder):
    if recorder.completed and not announced:
        announced.append(True)
        print("the pool calls", file=sys.stderr, flush=True)

def measure_and_announce(way, create, callers, plan, on_progress):
    return measure(way, create, callers, plan, announce if way == "pool" else on_progress)

run.measure = measure_and_announce
sys.exit(main({!r}))
"""


class _PageParser(html.parser.HTMLParser):
    """Collects the addresses that a page would load, its tags and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def _compiler() -> None:
    """Skips if the protobuf compiler does not run: old ones import a module that setuptools has removed."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "--version"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # noqa: S603 -- our own
        pytest.skip("grpcio-tools does not run on this platform")


@pytest.fixture(scope="module")
def tls_port() -> Iterator[int]:
    """The port of a server with TLS."""
    with grpc_server("--tls") as port:
        yield port


def test_it_compares_ways_and_callers(command: Commands, port: int) -> None:
    """Each way has a result for each number of callers, under the documented keys."""
    result = command("bench", f"127.0.0.1:{port}", CHECK, "--concurrency=1,4", *_QUICK, "--json")
    assert result.code == 0
    assert result.json["method"] == f"/{CHECK}"
    assert result.json["command"].startswith(f"grpcpool bench 127.0.0.1:{port} {CHECK} --concurrency=1,4 ")
    assert not result.json["interrupted"]
    assert {"python", "grpcio", "grpcpool", "protobuf", "system"} == set(result.json["versions"])
    results = result.json["results"]
    ways = [(callers, way) for callers in (1, 4) for way in ("bare", "native", "pool")]
    assert [(result["concurrency"], result["way"]) for result in results] == ways
    for result in results:
        assert result["available"] == (result["way"] != "native" or scaling_options(1) is not None)
        if result["available"]:
            assert result["complete"]
            assert (result["failed"], result["failures"]) == (0, {})
            latencies = [value for value in result["latency_ms"].values() if value is not None]
            assert len(latencies) == (len(_LATENCIES) if result["completed"] else 0)
            assert latencies[:-1] == sorted(latencies[:-1])
        assert tuple(result.get("latency_ms", _LATENCIES)) == _LATENCIES
    # On a busy machine one short measurement may pass without a completed call, but not all six.
    assert any(result.get("completed") for result in results)


@pytest.mark.skipif(sys.platform != "linux", reason="connections may not be countable on this platform")
def test_it_counts_connections(command: Commands, port: int) -> None:
    """Four callers need four connections of one stream each; a plain gRPC channel has one connection."""
    options = ("--concurrency=4", "--compare=bare,pool", "--max-size=4", "--max-streams=1", "--json")
    for _ in range(_TRIES):
        bare, pool = command("bench", f"127.0.0.1:{port}", CHECK, *options, *_QUICK).json["results"]
        if (bare["connections"], pool["connections"]) == (1, 4):
            return
    pytest.fail(f"never four connections in {_TRIES} tries")


def test_the_table_has_a_row_for_each(command: Commands, port: int) -> None:
    """Without `--json` it prints a table."""
    result = command("bench", f"127.0.0.1:{port}", CHECK, "--compare=pool", "--concurrency=2", *_QUICK)
    assert result.code == 0
    assert re.search(r"^ +2 +pool +[\d,]+( +[\d.,-]+){5} +\S+ +0 *$", result.out, re.MULTILINE)


@pytest.mark.parametrize("load", ["--concurrency=2", "--rate=50"])
def test_a_narrow_terminal_cuts_no_figure(
    command: Commands, port: int, load: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are longer than the terminal is wide then."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    result = command("bench", f"127.0.0.1:{port}", CHECK, "--compare=pool", load, *_QUICK)
    (figures,) = re.findall(r"^.* pool .*$", result.out, re.MULTILINE)
    assert "…" not in figures
    assert re.search("p50 +p90 +p99 +p99.9 +max +TCP +failed", result.out)


def test_requests_come_from_json(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """The request is checked against the server's description, given directly or in a file."""
    (tmp_path / "request.json").write_text('{"service": ""}')
    arguments = ("bench", f"127.0.0.1:{port}", CHECK, "--compare=bare", "--concurrency=1", *_QUICK, "--data")
    assert command(*arguments, f"@{tmp_path / 'request.json'}").code == 0
    unknown = command(*arguments, '{"service": "nobody"}')
    # The server gives no details.
    assert (unknown.code, unknown.line.endswith("failed: NOT_FOUND")) == (1, True)
    wrong = command(*arguments, '{"servant": ""}')
    assert (wrong.code, "--data is not a valid grpc.health.v1.HealthCheckRequest" in wrong.line) == (2, True)
    assert command(*arguments, "@nowhere.json").code == 2


@pytest.mark.usefixtures("_compiler")
def test_proto_files_describe_streams(command: Commands) -> None:
    """`--proto` replaces reflection; a stream is read to its end."""
    with grpc_server("--bare") as port:
        arguments = ("bench", f"127.0.0.1:{port}", "cli.Counting/Count", "--compare=bare", "--concurrency=1", *_QUICK)
        result = command(*arguments, "--proto", _PROTO, "--json")
        open_loop = command(*arguments[:-3], "--rate=50", *_QUICK, "--proto", _PROTO, "--json")
        without = command(*arguments)
        failing = command(*arguments, "--proto", _PROTO, "--data", '{"failure": "yes"}')
    assert (result.code, result.json["results"][0]["failed"]) == (0, 0)
    assert (open_loop.code, open_loop.json["results"][0]["failed"]) == (0, 0)
    assert (without.code, "does not support reflection" in without.line) == (1, True)
    assert (failing.code, "UNKNOWN" in failing.line) == (1, True)


def test_either_version_of_reflection_works(command: Commands) -> None:
    """Both commands use the reflection of a server that has only `v1`."""
    with grpc_server("--v1") as port:
        result = command("bench", f"127.0.0.1:{port}", CHECK, "--compare=bare", "--concurrency=1", *_QUICK)
        (address,) = command("probe", f"127.0.0.1:{port}", "--json").json["addresses"]
    assert result.code == 0
    assert address["reflection"] == ["v1"]
    assert "grpc.health.v1.Health" in address["services"]


def test_methods_that_do_not_exist(command: Commands, port: int) -> None:
    """A nonexistent method and an invalid name end with one line."""
    arguments = ("bench", f"127.0.0.1:{port}")
    missing = command(*arguments, "nobody.Nothing/Do").line
    assert "service nobody.Nothing not found in the server's reflection, which has: " in missing
    assert "grpc.health.v1.Health" in missing
    assert "has no method Chek; it has: Check" in command(*arguments, "grpc.health.v1.Health/Chek").line
    assert "expected package.Service/Method" in command(*arguments, "Check").line


@pytest.mark.usefixtures("_compiler")
def test_proto_files_that_do_not_help(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """A client-streaming method, and a file that does not compile, end with one line."""
    arguments = ("bench", f"127.0.0.1:{port}")
    assert "is client-streaming" in command(*arguments, "cli.Counting/Collect", "--proto", _PROTO).line
    (tmp_path / "bad.proto").write_text("no proto")
    bad = command(*arguments, "a.B/C", "--proto", tmp_path / "bad.proto")
    assert (bad.code, "cannot compile the .proto files" in bad.line) == (1, True)


def test_proto_needs_a_compiler(
    command: Commands, port: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the compiler is missing or does not run, the error says what to install."""
    package = tmp_path / "grpc_tools"
    package.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ("bench", f"127.0.0.1:{port}", "cli.Counting/Count", "--proto", _PROTO)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('No module named grpc_tools')")
    assert command(*arguments).line.endswith('pip install "grpcpool[cli]" grpcio-tools')
    (package / "__init__.py").write_text("import a_removed_module")
    assert "try a newer grpcio-tools" in command(*arguments).line


def test_an_unreachable_server(command: Commands) -> None:
    """A closed port ends the command with one line."""
    with unused_port() as port:
        result = command("bench", f"127.0.0.1:{port}", CHECK)
    assert result.code == 1
    assert "reflection failed: UNAVAILABLE" in result.line
    assert result.line.endswith("; try grpcpool probe")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concurrency=1,x"], "'x' is not a number of callers"),
        (["--concurrency=0"], "'0' is not a number of callers"),
        (["--concurrency="], "'' is not a number of callers"),
        (["--concurrency=" + 5000 * "9"], "--concurrency: '99999"),
        (["--rate=5", "--concurrency=5"], "--rate and --concurrency exclude each other"),
        (["--rate=5,fast"], "'fast' is not a number of calls per second"),
        (["--rate=0%"], "'0%' is not a number of calls per second"),
        (["--metadata=no colon"], "--metadata: number 1 is not valid: expected 'name: value'"),
        (["--concurrency=10,100000"], "100,000 callers are too many: each caller is a thread"),
        (["--compare=bare,best"], "'best' is not one of bare, native, pool"),
        (["--report=/nowhere/at/all.html"], "the folder does not exist"),
        (["--report=."], "is a folder"),
        (["--max-streams=2000000"], "max_streams = 2000000"),
        (["--tls", "--authority="], "--authority must not be empty"),
    ],
)
def test_usage(command: Commands, arguments: list[str], words: str) -> None:
    """A wrong command line exits with 2, before any call is made."""
    result = command("bench", "localhost:1", CHECK, *arguments)
    assert result.code == 2
    assert words in result.line


def test_more_callers_than_threads(command: Commands, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system cannot start enough threads, the error says how many it started."""

    class Scarce(threading.Thread):
        def start(self) -> None:
            if getattr(self, "_target", None) is load._keep_calling:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Thread", Scarce)
    result = command("bench", f"127.0.0.1:{port}", CHECK, "--concurrency=7", *_QUICK)
    assert result.code == 1
    assert "7 callers need a thread each, but only 0 started: can't start new thread" in result.line


@pytest.mark.parametrize("load", ["--concurrency=2", "--rate=50"])
def test_tls(command: Commands, tls_port: int, load: str) -> None:
    """Every way uses the TLS options."""
    options = ("--ca", CERTIFICATE, "--authority", "localhost", load, "--json", *_QUICK)
    result = command("bench", f"127.0.0.1:{tls_port}", CHECK, *options)
    assert all(result["failed"] == 0 for result in result.json["results"] if result["available"])


@pytest.mark.parametrize("load", ["--concurrency=2", "--rate=50"])
def test_the_server_receives_the_metadata(command: Commands, load: str) -> None:
    """Every call has the metadata, those for reflection included: a server that requires it rejects none."""
    with grpc_server("--token=secret") as port:
        bench = ("bench", f"127.0.0.1:{port}", CHECK, load, "--json", *_QUICK)
        given = command(*bench, "-H", "Authorization: Bearer secret", "--metadata=token-bin: c2VjcmV0")
        missing = command(*bench, "-H", "Authorization: Bearer secret")
    assert given.code == 0
    ways = [way for way in given.json["results"] if way["available"]]
    assert {"bare", "pool"} <= {way["way"] for way in ways}
    assert all(way["completed"] > 0 for way in ways)
    assert all(way["failed"] == 0 for way in ways)
    assert missing.code == 1
    assert "reflection failed: UNAUTHENTICATED" in missing.line


def test_the_report_is_self_contained(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """It is one page with every way's lines, the table and the versions, and loads nothing else."""
    path = tmp_path / "report.html"
    options = ("--report", path, "--concurrency=1,3", "--compare=bare,pool", *_QUICK)
    assert command("bench", f"127.0.0.1:{port}", CHECK, *options).code == 0
    page = path.read_text(encoding="utf-8")
    parsed = _PageParser(page)
    assert parsed.addresses == []
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    figures = figures_of(page)
    assert set(figures) == {f"{kind}-{level}" for kind in ("calls", "time", "curve") for level in (1, 2)}
    assert figures["time-2"].names == ["bare p50", "bare p99", "pool p50", "pool p99"]
    assert figures["curve-2"].names == ["bare", "pool"]
    assert figures["calls-2"].names[0] == "bare completed"
    assert len(page) < 100_000
    assert {"script", "link"}.isdisjoint(parsed.tags)
    assert {"grpcio", "p99.9", "calls/s", "bare", "pool"} <= set(parsed.texts)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are texts on this platform")
def test_a_report_whose_name_is_not_utf_8(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """The report shows the command line, and escapes what it cannot show."""
    path = tmp_path / "r\udcff.html"
    options = ("--report", path, "--concurrency=1", "--compare=bare", *_QUICK)
    assert command("bench", f"127.0.0.1:{port}", CHECK, *options).code == 0
    assert "r\\udcff.html" in path.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal on this platform")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("load", ["--concurrency=2", "--rate=50"])
def test_it_can_be_interrupted(port: int, tmp_path: pathlib.Path, load: str) -> None:
    """After Ctrl-C it prints the results so far, writes the report, and exits with 130."""
    path = tmp_path / "report.html"
    options = ["--compare=bare,pool", load, "--json", "--duration=1.5", "--warmup=0"]
    arguments = ["bench", f"127.0.0.1:{port}", CHECK, *options, "--report", str(path)]
    program = _ANNOUNCES_POOL.format(arguments)
    with subprocess.Popen(  # noqa: S603 -- our own
        [sys.executable, "-W", "error", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "the pool calls\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    result = json.loads(out)
    assert result["interrupted"]
    ended = [(result["complete"], result["completed"] > 0) for result in result["results"]]
    assert ended in ([(True, True), (False, True)], [(True, False), (False, True)])
    assert "The run was interrupted" in path.read_text(encoding="utf-8")
