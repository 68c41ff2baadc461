"""gRPC servers for tests: real processes on loopback that can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from grpcpool import isolated

_HERE = pathlib.Path(__file__).parent

ECHO, SLOW, FAIL, PID, PEER = (f"/test.Test/{name}" for name in ("Echo", "Slow", "Fail", "Pid", "Peer"))
COUNT, COLLECT, CHAT = (f"/test.Test/{name}" for name in ("Count", "Collect", "Chat"))


class Server:
    """One server process.

    Its methods, under ``/test.Test/``, take and return bytes: ``Echo``; ``Slow`` (answers after as many milliseconds
    as the request says); ``Fail`` (with the status code that the request names); ``Pid``; ``Peer`` (the address of
    the client's end of the connection); ``Count`` (request ``n,ms``: a stream of n messages with so many
    milliseconds before each); ``Collect`` (a stream of requests, answered joined); ``Chat`` (each answered with
    itself).
    """

    # What the process runs: takes `--port`, prints it when it serves, and ends when its standard input does.
    script = _HERE / "server_script.py"

    def __init__(self, *, threads: int = 64, max_concurrent_streams: int | None = None, port: int = 0) -> None:
        """Does not start it yet; the system chooses the port, unless one is given."""
        # The script's, besides the port.
        self.arguments: Sequence[str] = [
            f"--threads={threads}",
            *([] if max_concurrent_streams is None else [f"--max-concurrent-streams={max_concurrent_streams}"]),
        ]
        self._process: subprocess.Popen[str] | None = None
        self.port = port

    @property
    def target(self) -> str:
        """What to connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process that serves."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Serves when this returns."""
        command = [sys.executable, str(self.script), f"--port={self.port}", *self.arguments]
        environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.strip().isdigit(), f"the server did not start: {said!r}"
        self.port = int(said)
        return self

    def kill(self) -> None:
        """Ends the process at once, as a crash would; the port stays known for `restart`."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks the process to end, and waits for that."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Serves again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stops the process; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        # It takes a moment until the last of its threads stands still.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def channel(self) -> grpc.Channel:
        """A factory for pools: a new channel with a connection of its own.

        Reconnects quickly, so that tests of servers that come back need not wait.
        """
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
        return grpc.insecure_channel(self.target, isolated(options))

    def take_peaks(self) -> dict[str, int]:
        """The most calls that ran on each connection at once since this was asked last, by the client's address."""
        with self.channel() as channel:
            peaks: dict[str, int] = json.loads(unary(channel, "/test.Test/TakePeaks", b""))
        return peaks

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            process.send_signal(how)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait(timeout=10)

    def __enter__(self) -> Self:
        """Starts it."""
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends the process, frozen or not."""
        self.kill()


class AioServer(Server):
    """A server on asyncio, which hundreds of calls cost little, and which says how many it runs.

    Its methods are those of `Server` but for ``Pid``.
    """

    script = _HERE / "aio_server_script.py"

    def __init__(self, options: Mapping[str, int]) -> None:
        """Does not start it yet; `options` are gRPC's channel options, by name without ``grpc.``."""
        super().__init__()
        self.arguments = [f"--option=grpc.{name}={value}" for name, value in options.items()]

    def running(self) -> int:
        """How many calls it runs, those included that nobody waits for any more."""
        with self.channel() as channel:
            return int(unary(channel, "/test.Test/Running", b""))


def unary(channel: Any, method: str, request: bytes, **how: Any) -> bytes:
    """Calls a unary method of a channel and returns its answer."""
    how.setdefault("timeout", 20)
    answer: bytes = channel.unary_unary(method)(request, **how)
    return answer
