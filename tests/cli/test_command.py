"""The command as a whole: help, completion, and behaviour without the extra."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import grpcpool
from cli.support import COMMAND, Commands

# A device that is always full.
_FULL = pathlib.Path("/dev/full")

_BLOCKED = "import sys; sys.modules[{!r}] = None; from grpcpool.__main__ import main; sys.exit(main({!r}))"


def _without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process that cannot import the module."""
    program = _BLOCKED.format(module, list(arguments))
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 -- our own


def test_help_names_the_commands(command: Commands) -> None:
    """The general help names each command and the exit codes."""
    result = command("--help")
    assert result.code == 0
    for word in ("demo", "probe", "bench", "Exit codes", "--install-completion"):
        assert word in result.out


def test_version(command: Commands) -> None:
    """`--version` prints the installed version, with the extra and without."""
    result = command("--version")
    assert (result.code, result.out) == (0, f"grpcpool {grpcpool.__version__}\n")
    without = _without("typer", "--version")
    assert (without.returncode, without.stdout) == (0, result.out)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("demo", ["--aio"]),
        ("probe", ["ipv6:[::1]:443", "--in-flight", "--ca", "--json"]),
        ("bench", ["--data", "--proto", "--concurrency", "--rate", "--report", "closed loop", "open loop", "native"]),
    ],
)
def test_help_has_examples(command: Commands, name: str, words: list[str]) -> None:
    """Each command's help has examples, its options and the exit codes."""
    result = command(name, "--help")
    assert result.code == 0
    for word in (f"$ grpcpool {name}", "Exit codes", *words):
        assert word in result.out


def test_paragraphs_of_help_are_as_wide_as_the_terminal(command: Commands) -> None:
    """No line of a help text ends where one of the source does."""
    shown = command("demo", "--help").out
    assert " Takes about fifteen seconds, longer on a busy machine. Exits with 0 if nothing was lost. " in shown


def test_an_unknown_option(command: Commands) -> None:
    """An unknown option exits with 2."""
    assert command("probe", "localhost:1", "--nonsense").code == 2


@pytest.mark.parametrize("option", ["--timeout", "--duration", "--warmup"])
@pytest.mark.parametrize("seconds", ["inf", "1e10", "nan"])
def test_unsupported_durations(command: Commands, option: str, seconds: str) -> None:
    """More than a day and values that are not numbers exit with 2: neither sockets nor gRPC can wait that long."""
    assert command("bench", "localhost:1", "a.B/C", option, seconds).code == 2
    if option == "--timeout":
        assert command("probe", "localhost:1", option, seconds).code == 2


@pytest.mark.skipif(not _FULL.exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written(port: int) -> None:
    """If standard output cannot be written, the command exits with 1 and one line."""
    with _FULL.open("w", encoding="utf-8") as full:
        done = subprocess.run(  # noqa: S603 -- our own
            [*COMMAND, "probe", f"127.0.0.1:{port}"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["grpcpool: [Errno 28] No space left on device"]


@pytest.mark.skipif(not _FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("module", ["this.is.not.used", "typer"], ids=["with the extra", "without"])
@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"], ["demo"], []], ids=" ".join)
def test_help_and_demonstration_that_cannot_be_written(module: str, arguments: list[str]) -> None:
    """They exit with 1 and one line, too, with the extra and without."""
    command = [sys.executable, "-W", "error", "-c", _BLOCKED.format(module, arguments)]
    # Python buffers what it writes to a file, and writes it at its exit.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with _FULL.open("w", encoding="utf-8") as full:
        done = subprocess.run(  # noqa: S603 -- our own
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=buffered
        )
    assert done.stderr.splitlines() == ["grpcpool: [Errno 28] No space left on device"]
    assert done.returncode == 1


def test_shells_complete() -> None:
    """The shell's completion lists the commands with the typed prefix."""
    asked = {**os.environ, "_GRPCPOOL_COMPLETE": "complete_bash", "COMP_WORDS": "grpcpool pr", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=False, env=asked)  # noqa: S603 -- our own
    assert done.stdout.split() == ["probe"]


@pytest.mark.parametrize("name", ["probe", "bench"])
def test_without_the_extra_the_command_says_what_to_install(name: str) -> None:
    """Without typer, `probe` and `bench` and their help exit with 1 and say what to install."""
    for arguments in ([name, "localhost:1"], [name, "--help"]):
        done = _without("typer", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f'grpcpool: {name} needs the extra cli: pip install "grpcpool[cli]"\n'


def test_without_the_extra_the_demonstration_works() -> None:
    """Without typer, `demo` has its help, and the general help names the other commands."""
    helped = _without("typer", "demo", "--help")
    assert (helped.returncode, "--aio" in helped.stdout) == (0, True)
    named = _without("typer")
    assert named.returncode == 0
    assert "bench" in named.stdout
    assert _without("typer", "dmeo").returncode == 2


@pytest.mark.parametrize(("module", "name"), [("h2", "probe"), ("google.protobuf", "bench")])
def test_with_a_part_of_the_extra(module: str, name: str) -> None:
    """If typer is installed without the rest of the extra, the command says what to install."""
    arguments = [name, "localhost:1", *(["a.B/C"] if name == "bench" else [])]
    done = _without(module, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"grpcpool: {module}")
    assert done.stderr.endswith('is not installed: pip install "grpcpool[cli]"\n')


def test_the_pool_does_not_import_the_command() -> None:
    """Importing the pool imports neither typer nor the command."""
    program = "import sys, grpcpool, grpcpool.aio; sys.exit('typer' in sys.modules or 'grpcpool.cli' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)  # noqa: S603 -- our own
    assert done.returncode == 0
