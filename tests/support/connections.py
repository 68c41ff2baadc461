"""Counts TCP connections from outside gRPC and the pool, by asking the operating system."""

from __future__ import annotations

import gc

import psutil

from support.waiting import eventually


def connections_to(port: int) -> int:
    """Established TCP connections of this process to `port`."""
    return len(addresses_of_connections_to(port))


def addresses_of_connections_to(port: int) -> set[str]:
    """This process's ends of its established TCP connections to `port`, in the form of gRPC's `context.peer()`."""
    return {
        f"ipv4:{connection.laddr.ip.removeprefix('::ffff:')}:{connection.laddr.port}"
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr[1:] == (port,)
    }


def assert_no_connections(*ports: int) -> None:
    """Within seconds, this process has no connection to any of the `ports`."""
    # Calls that errors still refer to keep gRPC's connections open.
    gc.collect()
    eventually(lambda: sum(map(connections_to, ports)) == 0, timeout=10)
