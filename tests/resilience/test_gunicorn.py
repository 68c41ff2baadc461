"""Pools in web workers: the real gunicorn, which loads the application and then forks (``--preload``)."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from support.servers import Server
from support.waiting import eventually

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]

WORKERS = 2
# Per request.
CALLS = 8


@contextmanager
def gunicorn(home: pathlib.Path, target: str, *, used: bool) -> Iterator[tuple[str, subprocess.Popen[bytes], Any]]:
    """Serves `gunicorn_app` on an already listening socket; yields its URL, its process and its output."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 -- our own program
            [
                *(sys.executable, "-m", "gunicorn", "--preload", f"--workers={WORKERS}", "--worker-class=sync"),
                *(f"--bind=fd://{listener.fileno()}", "--timeout=20", "--graceful-timeout=5"),
                "resilience.gunicorn_app:app",
            ],
            pass_fds=[listener.fileno()],
            stdout=said,
            stderr=said,
            env={
                **os.environ,
                "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
                # It puts a socket of its own there.
                "HOME": str(home),
                "GRPC_VERBOSITY": "ERROR",
                "TARGET": target,
                "USED": "yes" if used else "no",
            },
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", process, said
        finally:
            # What is left after a failed test: first the workers, which nothing else would end.
            for child in psutil.Process(process.pid).children() if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait(10)


def addresses(pid: int, port: int) -> set[str]:
    """The process's ends of its TCP connections to `port`, in the form of gRPC's `context.peer()`."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {f"ipv4:127.0.0.1:{connection.laddr.port}" for connection in connections if connection.raddr[1:] == (port,)}


def get(url: str) -> dict[str, Any]:
    """One request."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 -- our own server
        answer: dict[str, Any] = json.load(response)
    return answer


def read(said: Any) -> str:
    """The output so far."""
    said.seek(0)
    text: bytes = said.read()
    return text.decode()


@pytest.mark.parametrize("used", [True, False])
def test_each_worker_has_connections_of_its_own(mortal: Server, tmp_path: pathlib.Path, used: bool) -> None:
    """Workers serve, and gunicorn stops cleanly, whether or not the pool was used in the master before the fork."""
    with gunicorn(tmp_path, mortal.target, used=used) as (url, process, said):
        peers: dict[int, set[str]] = defaultdict(set)
        master = ""

        def served() -> bool:
            nonlocal master
            answer = get(url)
            peers[answer["pid"]].update(answer["peers"])
            # Its counters start at 0: the master's calls are not counted.
            assert answer["calls"] % CALLS == 0
            master = answer["master"]
            return len(peers) == WORKERS

        eventually(served)
        one, two = peers
        assert process.pid not in peers
        assert (master != "") is used
        # As seen by the server, and by the system.
        assert peers[one].isdisjoint(peers[two] | {master})
        for worker, used_there in peers.items():
            assert used_there <= addresses(worker, mortal.port)
        for _ in range(20):
            assert get(url)["pid"] in peers
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, read(said)
        text = read(said)
        assert not [word for word in ("Traceback", "Error", "SIGKILL", "SIGABRT", "SIGSEGV") if word in text], text
        assert ("the pool was used in process" in text) is used
        assert not any(psutil.pid_exists(worker) for worker in peers)


def test_a_worker_that_dies_is_replaced_by_one_that_works(mortal: Server, tmp_path: pathlib.Path) -> None:
    """A replacement worker, forked later from a master whose pool was used, serves like the others."""
    with gunicorn(tmp_path, mortal.target, used=True) as (url, process, said):
        first = get(url)["pid"]
        os.kill(first, signal.SIGKILL)
        seen: set[int] = set()

        def served() -> bool:
            # A request that the killed worker had taken is lost with it, which does not matter here.
            try:
                seen.add(get(url)["pid"])
            except OSError:
                return False
            return len(seen - {first}) == WORKERS

        eventually(served)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, read(said)
        assert "Traceback" not in read(said)
