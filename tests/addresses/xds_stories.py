"""The program in which `test_xds` has its pools: gRPC reads once in each process where its control plane is.

Each line of its input names a story, a function of this module; it answers with a line: the error, or `null`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from addresses.fleet import pid_of
from resilience.tasks import LoopThread, Tasks
from resilience.threads import Threads
from resilience.worlds import Load, Subject, World
from support.connections import connections_by_host
from support.control_plane import assign
from support.servers import PID, dead_target
from support.waiting import eventually

_CALLERS = 25
# Milliseconds.
_A_CALL = b"20"


class Service:
    """`xds:///name`, and the servers that it may lead to."""

    def __init__(self, world: World, control_plane: str, servers: dict[str, str]) -> None:
        """In this world; `servers` are process ids by address."""
        self._world = world
        self._control_plane = control_plane
        self._servers = [*servers]
        self._pids = [pid.encode() for pid in servers.values()]
        self._numbers = itertools.count(1)
        self._name = ""

    def leads_to(self, *numbers: int, others: Sequence[str] = ()) -> None:
        """From now on, only to the servers with these numbers, and to `others`."""
        targets = [*(self._servers[number] for number in numbers), *others]
        assign(self._control_plane, self._name, targets)

    @contextlib.contextmanager
    def pool(self, *numbers: int, **config: Any) -> Iterator[Subject]:
        """A pool over it that leads to the servers with these numbers."""
        # What gRPC remembers of the name before is not to count.
        self._name = f"orders-{next(self._numbers)}"
        self.leads_to(*numbers)
        with self._world.pool(f"xds:///{self._name}", options=[], **config) as subject:
            yield subject
        eventually(lambda: not any(self.connections()))

    def connections(self) -> list[int]:
        """Established TCP connections to each server."""
        hosts, port = self._hosts_and_port()
        found = connections_by_host(port)
        return [found[host] for host in hosts]

    def answers(self, load: Load, *, last: int) -> list[int]:
        """How many of the load's last calls each server has answered."""
        answers = [outcome.answer for outcome in load.outcomes[-last:]]
        return [answers.count(pid) for pid in self._pids]

    def answered_by(self, subject: Subject) -> set[int]:
        """The numbers of the servers that answer some calls."""
        return {self._pids.index(pid_of(subject)) for _ in range(len(self._pids))}

    def _hosts_and_port(self) -> tuple[list[str], int]:
        parts = [server.rpartition(":") for server in self._servers]
        return [host for host, _, _ in parts], int(parts[0][2])


def addresses(subject: Subject) -> set[str | None]:
    """The addresses of the pool's connections, as the pool knows them."""
    return {channel.address for channel in subject.stats().channels}


def all_servers(service: Service) -> None:
    """One channel of the pool connects to all servers, and its calls reach all of them."""
    with service.pool(0, 1, 2, max_size=1) as subject:
        subject.open()
        eventually(lambda: service.answered_by(subject) == {0, 1, 2})
        assert service.connections() == [1, 1, 1, 0]
        assert (subject.stats().ready, addresses(subject)) == (1, {None})


def many_calls(service: Service) -> None:
    """With more calls than one channel carries, there are several, and each connects to all servers."""
    with service.pool(0, 1, 2, max_streams=10, max_size=4) as subject:
        with subject.load(_CALLERS, PID, _A_CALL) as load:
            eventually(lambda: subject.stats().ready >= 3)
            eventually(lambda: service.connections() == [subject.stats().ready] * 3 + [0])
            load.wait_for_calls(2 * _CALLERS)
            assert all(service.answers(load, last=2 * _CALLERS)[:3])
        load.assert_none_failed()
        assert addresses(subject) == {None}


def one_channel(service: Service) -> None:
    """A channel carries `max_streams` calls, over all servers together."""
    with service.pool(0, 1, 2, max_streams=4, max_size=1) as subject:
        with subject.load(_CALLERS, PID, _A_CALL) as load:
            eventually(lambda: service.connections() == [1, 1, 1, 0])
            load.wait_for_calls(_CALLERS)
            eventually(lambda: (subject.stats().in_flight, subject.stats().waiting) == (4, _CALLERS - 4))
        load.assert_none_failed()


def servers_change(service: Service) -> None:
    """A server that is gone gets no call any more, a new one gets its share, and no call fails."""
    with service.pool(0, 1, 2, min_size=2, max_size=2) as subject:
        subject.open()
        with subject.load(_CALLERS, PID, _A_CALL) as load:
            eventually(lambda: service.connections() == [2, 2, 2, 0])
            service.leads_to(0, 1)
            eventually(lambda: service.connections() == [2, 2, 0, 0])
            load.wait_for_calls(2 * _CALLERS)
            assert not service.answers(load, last=_CALLERS)[2]
            service.leads_to(0, 1, 3)
            eventually(lambda: service.answers(load, last=4 * _CALLERS)[3])
            assert service.connections() == [2, 2, 0, 2]
        load.assert_none_failed()
        stats = subject.stats()
        assert (stats.opened, stats.losses, addresses(subject)) == (2, 0, {None})


def unreachable_server(service: Service) -> None:
    """A server that cannot be reached gets no call, and the pool reports no loss: its channel has another."""
    with dead_target() as dead, service.pool(0, 1, max_size=1) as subject:
        subject.open()
        with subject.load(_CALLERS, PID, _A_CALL) as load:
            eventually(lambda: service.connections() == [1, 1, 0, 0])
            service.leads_to(0, others=[dead])
            eventually(lambda: service.connections() == [1, 0, 0, 0])
            load.wait_for_calls(4 * _CALLERS)
        load.assert_none_failed()
        stats = subject.stats()
        assert (stats.ready, stats.opened, stats.losses) == (1, 1, 0)


def no_server(service: Service) -> None:
    """When no server can be reached the connection is lost; when one can be reached again, calls succeed."""
    with dead_target() as dead, service.pool(0, max_size=1) as subject:
        subject.open()
        service.leads_to(others=[dead])
        eventually(lambda: subject.stats().losses == 1)
        service.leads_to(0)
        eventually(lambda: subject.stats().ready == 1)
        assert service.answered_by(subject) == {0}


STORIES: Sequence[Callable[[Service], None]] = (
    all_servers,
    many_calls,
    one_channel,
    servers_change,
    unreachable_server,
    no_server,
)


@contextlib.contextmanager
def _world(name: str) -> Iterator[World]:
    if name == "threads":
        yield Threads()
    else:
        with LoopThread() as loop:
            yield Tasks(loop)


def _error_of(story: Callable[[Service], None], service: Service) -> str | None:
    try:
        story(service)
    except Exception:  # noqa: BLE001 -- the test raises it
        return traceback.format_exc()
    return None


def main() -> None:
    """Runs the stories that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("world")
    parser.add_argument("control_plane")
    parser.add_argument("servers", type=json.loads)
    arguments = parser.parse_args()
    by_name = {story.__name__: story for story in STORIES}
    with _world(arguments.world) as world:
        service = Service(world, arguments.control_plane, arguments.servers)
        for line in sys.stdin:
            sys.stdout.write(json.dumps(_error_of(by_name[line.strip()], service)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
