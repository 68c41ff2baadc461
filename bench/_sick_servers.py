"""What the benchmarks with sick servers share: the servers, and gRPC's own `round_robin` over them."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

import grpcpool

METHOD = "/sick.Server/Work"
_ROUND_ROBIN = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]


class Server:
    """One server, in a process of its own."""

    def __init__(self) -> None:
        """Starts it, but does not wait until it serves."""
        script = Path(__file__).with_name("_sick_server.py")
        self._process = subprocess.Popen(  # noqa: S603 -- our own
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @functools.cached_property
    def target(self) -> str:
        """Its address, as soon as it serves."""
        return f"127.0.0.1:{self._line()}"

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 -- a pipe was asked for
        return self._process.stdout.readline().strip()

    def fall_sick(self, **how: Any) -> None:
        """Fails calls from now on, or not any more."""
        assert self._process.stdin is not None  # noqa: S101 -- a pipe was asked for
        self._process.stdin.write(json.dumps(how) + "\n")
        self._process.stdin.flush()
        self._line()

    def freeze(self, *, frozen: bool) -> None:
        """Stops the process, or lets it go on."""
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def servers(number: int) -> Iterator[list[Server]]:
    """So many servers, which start at the same time."""
    made = [Server() for _ in range(number)]
    try:
        for server in made:
            # The port is the first line of its output; later lines answer commands.
            server.target  # noqa: B018 -- waits
        yield made
    finally:
        for server in made:
            server.end()


def sync_round_robin(targets: list[str]) -> grpc.Channel:
    """A channel that balances by itself."""
    return grpc.insecure_channel("ipv4:" + ",".join(targets), [*_ROUND_ROBIN, *grpcpool.isolated()])


def aio_round_robin(targets: list[str]) -> grpc.aio.Channel:
    """As `sync_round_robin`, for asyncio."""
    return grpc.aio.insecure_channel("ipv4:" + ",".join(targets), [*_ROUND_ROBIN, *grpcpool.isolated()])
