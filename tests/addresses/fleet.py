"""Servers on several addresses with one port, as behind one name."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from resilience.worlds import Load, Subject
from support.connections import connections_by_host
from support.servers import PID, Server

NAME = "orders.test"
"""What the tests' DNS server knows and no other does."""

LOOK_UP_EVERY = 0.3
"""Seconds."""

OFTEN = [("grpc.dns_min_time_between_resolutions_ms", round(LOOK_UP_EVERY * 1000))]
"""Options of a channel: names are looked up often."""

# macOS has only the first of the loopback addresses.
HAS_ADDRESSES = sys.platform != "darwin"

_ATTEMPTS = 10


def hosts(number: int) -> list[str]:
    """This many addresses of this machine."""
    return [f"127.0.0.{i}" for i in range(2, 2 + number)]


class Servers(Sequence[Server]):
    """Servers on as many addresses, all with the same port."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """These."""
        self._servers = servers
        self.port = servers[0].port

    def __getitem__(self, index: int) -> Server:  # type: ignore[override]
        """The one on that address."""
        return self._servers[index]

    def __len__(self) -> int:
        """How many."""
        return len(self._servers)

    def target(self, number: int | None = None) -> str:
        """A list of all addresses, or of the first `number`, as a target."""
        return "ipv4:" + ",".join(server.target for server in self._servers[:number])

    @property
    def name(self) -> str:
        """The name of all, as a target."""
        return f"dns:///{NAME}:{self.port}"

    def connections(self, number: int | None = None) -> list[int]:
        """Established TCP connections to each, or to each of the first `number`, counted from outside."""
        found = connections_by_host(self.port)
        return [found[server.host] for server in self._servers[:number]]

    def calls(self, load: Load, *, since: int = 0) -> list[int]:
        """How many of the load's answered calls of `Pid`, from number `since` on, each has answered."""
        found = Counter(outcome.answer for outcome in load.outcomes[since:])
        return [found[str(server.pid).encode()] for server in self._servers]


@contextlib.contextmanager
def running(number: int) -> Iterator[Servers]:
    """Runs servers on this many addresses."""
    for _ in range(_ATTEMPTS):
        with contextlib.ExitStack() as stack:
            port = 0
            servers: list[Server] = []
            for host in hosts(number):
                if port and not _is_free(host, port):
                    break
                # Otherwise a server could share the port with one of another test.
                server = stack.enter_context(Server({"so_reuseport": 0}, host=host, port=port))
                port = server.port
                servers.append(server)
            else:
                yield Servers(servers)
                return
    raise AssertionError("no port is free on all addresses")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def pid_of(subject: Subject) -> bytes:
    """The process id of the server that answers a call."""
    return subject.call(PID, b"")


def are_even(numbers: Sequence[int], total: int) -> bool:
    """Whether all these are there, and no two differ by more than one."""
    return sum(numbers) == total and max(numbers) - min(numbers) <= 1
