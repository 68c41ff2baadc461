"""gRPC servers for tests: real processes on loopback that can be killed, frozen and started again."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from grpcpool import isolated

_HERE = pathlib.Path(__file__).parent

ECHO, SLOW, FAIL, PID, PEER = (f"/test.Test/{name}" for name in ("Echo", "Slow", "Fail", "Pid", "Peer"))
RELAY, STOP, TOGETHER = (f"/test.Test/{name}" for name in ("Relay", "Stop", "Together"))
COUNT, COLLECT, CHAT = (f"/test.Test/{name}" for name in ("Count", "Collect", "Chat"))


RECONNECT_SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
"""Options of a channel: a lost connection is tried again soon, so that tests of servers that come back are quick."""


class _Template:
    """The program from which servers are forked."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._requests, theirs = socket.socketpair()
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            [sys.executable, str(_HERE / "server_template.py"), str(theirs.fileno())],
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self._end)

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Returns what it answers; see `server_template`."""
        with self._guard:
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            answer = self._requests.recv(100)
        assert answer, "the program from which servers are forked has ended"
        return int(answer)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait(timeout=10)


_starting = threading.Lock()


def _template() -> _Template:
    """Started when the first server is: one, also if several are started at once. Only it can wait for its servers."""
    with _starting:
        return _started_template()


@functools.cache
def _started_template() -> _Template:
    return _Template()


class _Process:
    """A server's process."""

    def __init__(self, script: str, arguments: Sequence[str]) -> None:
        """Starts it."""
        their_input, our_input = os.pipe()
        our_output, their_output = os.pipe()
        self.stdin = os.fdopen(our_input, "w", encoding="utf-8")
        self.stdout = os.fdopen(our_output, encoding="utf-8")
        try:
            request = {"script": script, "arguments": arguments}
            self.pid = _template().ask(request, (their_input, their_output))
        finally:
            os.close(their_input)
            os.close(their_output)

    def freeze(self) -> None:
        """Returns when it is stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        # It takes a moment until the last of its threads stops.
        ended = _template().ask({"stopped": self.pid})
        assert not ended, f"the server has ended by itself, with code or by signal {ended}"

    def thaw(self) -> None:
        """Lets it continue."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self, how: signal.Signals) -> None:
        """Returns when it has ended. Its id is not used again before."""
        self.thaw()
        os.kill(self.pid, how)
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        _template().ask({"ended": self.pid})


@contextlib.contextmanager
def forked_server(script: str, *arguments: str) -> Iterator[int]:
    """Runs a script, a module that tests can import, in a process of its own; yields the port that it prints."""
    process = _Process(script, arguments)
    try:
        line = process.stdout.readline()
        assert line.strip().isdigit(), f"the server did not start: {line!r}"
        yield int(line)
    finally:
        process.end(signal.SIGKILL)


class ServerProcess:
    """A server as a process, which runs the script of a subclass: one that `server_template` has imported."""

    script: pathlib.Path
    """Takes `--port`, prints the port when it serves, and ends when its standard input does."""

    host = "127.0.0.1"
    """Where it listens."""

    def __init__(self, *arguments: str) -> None:
        """Does not start it yet; `arguments` are the script's, besides the port."""
        self._arguments = arguments
        self._process: _Process | None = None
        self.port = 0

    @property
    def target(self) -> str:
        """What to connect to."""
        return f"{self.host}:{self.port}"

    @property
    def process(self) -> _Process:
        """The process that serves."""
        assert self._process is not None, "the server is not running"
        return self._process

    @property
    def pid(self) -> int:
        """The id of the process that serves."""
        return self.process.pid

    def start(self) -> Self:
        """Serves when this returns: on a port chosen by the system, or on its earlier port when started again."""
        self._process = _Process(f"support.{self.script.stem}", [f"--port={self.port}", *self._arguments])
        line = self._process.stdout.readline()
        assert line.strip().isdigit(), f"the server did not start: {line!r}"
        self.port = int(line)
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
        self.process.freeze()

    def thaw(self) -> None:
        """Lets a frozen process continue."""
        self.process.thaw()

    def channel(self) -> grpc.Channel:
        """A factory for pools: a new channel with its own connection, which reconnects soon."""
        return grpc.insecure_channel(self.target, isolated(RECONNECT_SOON))

    def aio_channel(self) -> grpc.aio.Channel:
        """Same as `channel`, for asyncio."""
        return grpc.aio.insecure_channel(self.target, isolated(RECONNECT_SOON))

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(how)

    def __enter__(self) -> Self:
        """Starts it."""
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends the process, frozen or not."""
        self.kill()


class Server(ServerProcess):
    """The server of most tests.

    Its methods, under ``/test.Test/``, take and return bytes: ``Echo``; ``Slow`` (answers after as many milliseconds
    as the request says); ``Fail`` (with the status code that the request names); ``Pid`` (the process's id, after as
    many milliseconds as the request says); ``Peer`` (the address of the client's end of the connection); ``Count``
    (request ``n,ms``: a stream of n messages, each after a pause of ms milliseconds); ``Collect`` (a stream of
    requests, answered joined); ``Chat`` (each answered with itself).
    """

    script = _HERE / "server_script.py"

    def __init__(
        self,
        options: Mapping[str, int] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: pathlib.Path | None = None,
    ) -> None:
        """Does not start it yet.

        Args:
            options: gRPC's channel options, by name without ``grpc.``.
            host: Where it listens.
            port: At which port; 0 for one chosen by the system.
            certificate: Where the certificate and its key are, without ``.crt`` and ``.key``, for TLS.
        """
        arguments = [f"--option=grpc.{name}={value}" for name, value in (options or {}).items()]
        if certificate is not None:
            arguments.append(f"--certificate={certificate}")
        super().__init__(f"--host={host}", *arguments)
        self.host = host
        self.port = port

    def running(self) -> int:
        """How many calls it runs, including those that no client waits for any more."""
        with self.channel() as channel:
            return int(unary(channel, "/test.Test/Running", b""))

    def take_peaks(self) -> dict[str, int]:
        """The most calls that ran at once on each connection, by the client's address, since this was last asked."""
        with self.channel() as channel:
            peaks: dict[str, int] = json.loads(unary(channel, "/test.Test/TakePeaks", b""))
        return peaks


@contextlib.contextmanager
def dead_target() -> Iterator[str]:
    """An address at which every attempt to connect is refused, as long as the block lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def mute_target() -> Iterator[str]:
    """An address that accepts connections and never sends anything, so that channels to it stay connecting."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def unary(channel: Any, method: str, request: bytes, **how: Any) -> bytes:
    """Calls a unary method of a channel and returns its answer."""
    how.setdefault("timeout", 20)
    answer: bytes = channel.unary_unary(method)(request, **how)
    return answer
