"""Ctrl-C ends the demonstration at once, silently and with its servers, whenever it comes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from grpcpool.__main__ import main
from grpcpool._demo import server

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGINT"),
    pytest.mark.usefixtures("interruptible"),
]

_WORLDS = pytest.mark.parametrize("options", [[], ["--aio"]], ids=["threads", "aio"])
_WITHIN = 3.0
# Python writes a line to standard error for each module that it has imported, first those that others import.
_IMPORTS = "import time:"
# Imported when the command handles Ctrl-C already.
_FIRST = "grpcpool.cli"


@contextlib.contextmanager
def _demonstration(options: list[str], stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-X", "importtime", "-m", "grpcpool", "demo", *options]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
        try:
            assert process.stderr is not None
            assert any(line.rstrip().endswith(_FIRST) for line in process.stderr)
            yield process
        finally:
            process.kill()


def _interrupt(process: subprocess.Popen[str], times: int = 1) -> None:
    """Interrupts it, and checks that it ends as it should, and its servers with it."""
    servers = psutil.Process(process.pid).children()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < _WITHIN
    assert [line for line in errors.splitlines() if not line.startswith(_IMPORTS)] == []
    assert process.returncode == 130
    _, left = psutil.wait_procs([each for each in servers if _runs(each)], timeout=_WITHIN)
    assert not any(map(_runs, left))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_other_commands_restore_the_handler() -> None:
    """In the other commands Ctrl-C raises `KeyboardInterrupt`: they print what they have so far."""
    program = (
        "import signal, sys; from grpcpool.__main__ import main; sys.argv[1:] = ['bench', '--help']\n"
        "try: main()\n"
        "finally: assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL)  # noqa: S603


def test_programs_keep_their_handler() -> None:
    """What imports the package, or calls the command's function, keeps Python's handler."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert signal.getsignal(signal.SIGINT) is before


@_WORLDS
@pytest.mark.parametrize("after", [0.0, 0.1, 2.5])
def test_it_can_be_interrupted(options: list[str], after: float) -> None:
    """While it is imported, and during its first part."""
    with _demonstration(options) as process:
        time.sleep(after)
        _interrupt(process)


@pytest.mark.long
@_WORLDS
@pytest.mark.parametrize("after", [0.02, 0.05, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 3.5, 4.5, 5.5, 7.0, 8.5, 9.5, 10.5])
def test_it_can_be_interrupted_at_any_moment(options: list[str], after: float) -> None:
    """Also with two signals in a row."""
    with _demonstration(options) as process:
        time.sleep(after)
        _interrupt(process, times=2)


def test_its_server_ends_as_silently() -> None:
    """Also if the demonstration has ended before it reads what the server answers."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        command = [sys.executable, "-P", server.__file__]
        done = subprocess.run(  # noqa: S603 -- our own
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_in_a_terminal_the_live_line_is_ended() -> None:
    """In a terminal there is a live line, and the shell's prompt appears below it."""
    reading, terminal = os.openpty()
    try:
        with _demonstration([], terminal) as process:
            shown = b""
            while b"done" not in shown:
                shown += os.read(reading, 1000)
            _interrupt(process)
        while not shown.endswith(b"\n"):
            shown += os.read(reading, 1000)
    finally:
        os.close(reading)
        os.close(terminal)
    assert b"\r  " in shown
