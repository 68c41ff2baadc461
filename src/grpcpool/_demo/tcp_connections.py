"""Counts TCP connections from outside: as the operating system sees them, not the pool.

Linux lists them in ``/proc``; BSD, macOS and Windows with ``netstat -an``. Only the client's end of each established
connection counts, so that a connection within one machine counts once.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator

_TABLES = (pathlib.Path("/proc/net/tcp"), pathlib.Path("/proc/net/tcp6"))
_ESTABLISHED = "01"

# netstat's lines: protocol, optionally two numbers, local and remote address, state. BSD has a dot before the port.
_NETSTAT = re.compile(r"^\s*tcp\S*\s+(?:\d+\s+\d+\s+)?\S+\s+\S+[.:](\d+)\s+ESTABLISHED", re.IGNORECASE)


def count_connections(port: int) -> int | None:
    """Returns the number of established connections to `port`; `None` if this system does not report them."""
    tables = [table for table in _TABLES if table.exists()]
    if tables:
        lines = (line for table in tables for line in table.read_text().splitlines())
        return sum(remote == port for remote in ports_of_proc(lines))
    netstat = shutil.which("netstat")
    if netstat is None:
        return None
    output = subprocess.run([netstat, "-an"], capture_output=True, text=True, check=False)  # noqa: S603 -- a fixed command
    return sum(remote == port for remote in ports_of_netstat(output.stdout.splitlines()))


def ports_of_proc(lines: Iterable[str]) -> Iterator[int]:
    """Yields the remote port of each established connection, from the lines of ``/proc/net/tcp``.

    The kernel repeats lines if connections come and go while it is read; each has a local port of its own.
    """
    counted = set()
    for line in lines:
        _, local, remote, state, *_ = line.split()
        if state == _ESTABLISHED and (local, remote) not in counted:
            counted.add((local, remote))
            yield int(remote.rpartition(":")[2], 16)


def ports_of_netstat(lines: Iterable[str]) -> Iterator[int]:
    """Yields the remote port of each established connection, from the output of ``netstat -an``."""
    for line in lines:
        if (match := _NETSTAT.match(line)) is not None:
            yield int(match[1])
