"""Counts TCP connections from outside gRPC and the pool, by asking the operating system."""

from __future__ import annotations

import contextlib
import gc
import pathlib
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import psutil

from support.garbage import ASIDE
from support.waiting import eventually

_Ends = tuple[str, int, str, int]
"""The address and port of this process's end of a connection, and those of the other."""


def connections_to(port: int) -> int:
    """Established TCP connections of this process to `port`."""
    return len(addresses_of_connections_to(port))


def connections_by_host(port: int) -> Counter[str]:
    """Established TCP connections of this process to `port`, by the address of the server."""
    return Counter(host.removeprefix("::ffff:") for _, _, host, other in _established() if other == port)


def addresses_of_connections_to(port: int) -> set[str]:
    """This process's ends of its established TCP connections to `port`, as gRPC's `context.peer()` writes them."""
    return {f"ipv4:{ip.removeprefix('::ffff:')}:{own}" for ip, own, _, other in _established() if other == port}


if sys.platform == "linux":
    # The first byte of what the system says about a connection is its state.
    _TCP_ESTABLISHED = 1

    def _established() -> Iterator[_Ends]:
        """Asks about each socket of this process: the system's table also has all others, which takes long to read."""
        for descriptor in pathlib.Path("/proc/self/fd").iterdir():
            # A file, or a socket that is not connected or closed by now, answers with an error.
            with contextlib.suppress(OSError):
                asked = socket.socket(fileno=int(descriptor.name))
                try:
                    yield from _ends(asked)
                finally:
                    # It stays open: it is not ours.
                    asked.detach()

    def _ends(asked: socket.socket) -> Iterator[_Ends]:
        if asked.family not in (socket.AF_INET, socket.AF_INET6) or asked.type != socket.SOCK_STREAM:
            return
        if asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_ESTABLISHED:
            yield *asked.getsockname()[:2], *asked.getpeername()[:2]

else:

    def _established() -> Iterator[_Ends]:
        for connection in psutil.Process().net_connections("tcp"):
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr:
                yield connection.laddr.ip, connection.laddr.port, connection.raddr.ip, connection.raddr.port


def assert_no_connections(*ports: int) -> None:
    """Within seconds, this process has no connection to any of the `ports`."""
    # Calls that errors still refer to keep gRPC's connections open.
    gc.collect()
    try:
        eventually(lambda: sum(map(connections_to, ports)) == 0, timeout=1)
    except AssertionError:
        # What was alive when it was set aside, between two tests, may be garbage by now.
        ASIDE.look_through_all()
        eventually(lambda: sum(map(connections_to, ports)) == 0, timeout=10)
