"""Chaos under load for a given time, in both worlds at once: ``nox -s soak -- --minutes N --seed SEED``.

Three servers behind one target are killed, restarted and frozen, and send GOAWAY to old connections; a pool over them
is refreshed and resized, also to very few connections, and has connections discarded and calls cancelled, while callers
of all kinds use it. It goes in rounds. At the end of each round all troubles and callers end, and the books must
balance:

    * nothing is in flight, nothing waits, each connection of the pool is a TCP connection, and no server runs a call;
    * each call has ended, in time, and as intended, or as `verdict.py` can explain;
    * what the pool counted is what the callers counted, and no connection was closed with a call on it;
    * memory is what it was after the first round.

At the end the pool is closed: no thread, task, fd, connection or object of it is left. Nothing may be uncaught, or
logged as an error. A failure prints the seed, and the command that repeats the soak: the same deeds and calls in the
same order, though not at the same milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import pathlib
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from grpcpool import Listener, Mode, PoolConfig
from soak.book import Book
from soak.chaos import Chaos
from soak.journal import Journal, Witness
from soak.judge import Judge
from soak.remains import Complaints, Remains, left_over
from soak.servers import Server
from soak.tasks import Tasks
from soak.threads import Threads
from soak.world import Setting, World, dice

WORLDS = ("threads", "asyncio")
REPLAY = ("nox", "-s", "soak", "--")
# Seconds of a round, and of its end.
_ROUND, _TO_REST = 20.0, 3.0
_PROGRESS = 10.0
# Seconds of calls before anything is measured.
_WARM = 1.0
# Seconds beyond its time after which a hanging soak is ended.
_OVERDUE = 60.0

_SERVERS = 3
# Seconds after which they send GOAWAY to a connection.
_AGE = 3.0


def say(what: str) -> None:
    """Prints at once."""
    print(what, flush=True)  # noqa: T201 -- a script


def config_of(rng: random.Random) -> PoolConfig:
    """A pool in which timers keep firing, and that has room for all that the callers want at once."""
    return PoolConfig(
        min_size=2,
        max_size=10,
        max_streams=rng.randint(6, 12),
        mode=rng.choice(list(Mode)),
        idle_timeout=rng.uniform(1, 3),
        max_age=rng.uniform(2, 6),
        age_jitter=0.3,
        connect_timeout=5.0,
        acquire_timeout=8.0,
        drain_timeout=60.0,
        picker=rng.choice(["least_loaded", "round_robin", "fill"]),
        leak_threshold=20.0,
    )


@contextlib.contextmanager
def running_servers(rng: random.Random) -> Iterator[list[Server]]:
    """All servers, started together. With every other seed, one refuses calls beyond a limit of its own."""
    servers = [Server(age=_AGE) for _ in range(_SERVERS - 1)]
    servers.append(Server(age=_AGE, limit=rng.choice([None, 5])))
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
        with ThreadPoolExecutor(len(servers)) as starters:
            list(starters.map(Server.start, servers))
        yield servers


def make_world(name: str, setting: Setting, book: Book, complaints: Complaints) -> World:
    """The world with this name."""
    return Threads(setting, book) if name == "threads" else Tasks(setting, book, complaints)


class Soak:
    """One soak of one world."""

    def __init__(self, name: str, seed: int, servers: list[Server], complaints: Complaints) -> None:
        """Does not run yet."""
        self._name = name
        self._complaints = complaints
        self._servers = servers
        self._journal = journal = Journal()
        self._book = Book()
        witness = Witness(journal)
        target = "ipv4:" + ",".join(server.target for server in servers)
        setting = Setting(target=target, config=config_of(dice(seed, "config")), listener=witness, seed=seed)
        self._world = make_world(name, setting, self._book, complaints)
        witness.watch(self._world.pool._driver)
        self._chaos = Chaos(self._world, servers, journal, self._book)
        self._judge = Judge(self._world, servers, journal, self._book, witness)
        self._printed_at = time.monotonic()
        say(f"{name:8} {setting.config}")

    def run(self, until: float) -> list[str]:
        """Soaks; returns what was wrong."""
        began = time.monotonic()
        rounds = max(2, round((until - began) / _ROUND))
        for i in range(rounds):
            self._world.start_callers(i)
            self._chaos.rage(began + (until - began) * (i + 1) / rounds - _TO_REST, self._glance)
            self._chaos.heal()
            self._judge.end_of_round()
            self._progress(f"end of round {i + 1} of {rounds}")
            if self._judge.wrong:
                break
        self._judge.end()
        return self._judge.wrong

    def table(self) -> str:
        """The deeds, the outcomes of the calls, and their explanations."""
        deeds = ", ".join(f"{what} {number}" for what, number in self._chaos.done.items())
        return f"{self._name}: deeds: {deeds}\n{self._judge.table()}"

    def _glance(self) -> None:
        if time.monotonic() >= self._printed_at + _PROGRESS:
            self._printed_at = time.monotonic()
            self._progress("")

    def _progress(self, what: str) -> None:
        say(f"{self._name:8} {self._journal.at(time.monotonic())} s  {self._judge.progress()}  {what}".rstrip())


def soak(name: str, seed: int, until: float) -> int:
    """Soaks one world in this process; returns its exit code."""
    faulthandler.dump_traceback_later(until - time.monotonic() + _OVERDUE, exit=True)
    complaints = Complaints()
    with running_servers(dice(seed, "servers")) as servers:
        warm_up(name, servers, complaints)
        before = Remains.now()
        this = Soak(name, seed, servers, complaints)
        wrong = this.run(until)
        table = this.table()
        del this
        wrong += left_over(before)
    wrong += [f"uncaught, or logged as an error: {heard}" for heard in complaints.heard]
    say(table)
    for what in wrong:
        say(f"{name}: WRONG: {what}")
    say(f"{name}: {f'{len(wrong)} things are wrong' if wrong else 'all is well'}; seed {seed}")
    return bool(wrong)


def warm_up(name: str, servers: list[Server], complaints: Complaints) -> None:
    """A short life of another pool, for what gRPC and Python make at their first use, and keep."""
    target = "ipv4:" + ",".join(server.target for server in servers)
    setting = Setting(target=target, config=PoolConfig(max_streams=6), listener=Listener(), seed=0)
    world = make_world(name, setting, Book(), complaints)
    world.start_callers(0)
    time.sleep(_WARM)
    assert world.stop_callers(_OVERDUE), "the callers of the warm-up do not end"
    world.close()
    assert all(server.running() == 0 for server in servers), "a server still runs calls of the warm-up"


def both(arguments: argparse.Namespace, seed: int) -> int:
    """Soaks both worlds at once, each in a process of its own."""
    command = [sys.executable, "-W", "error", __file__, f"--minutes={arguments.minutes}", f"--seed={seed}"]
    children = [subprocess.Popen([*command, f"--world={world}"]) for world in WORLDS]  # noqa: S603 -- this script
    try:
        return max(abs(child.wait()) for child in children)
    finally:
        for child in children:
            child.kill()
            child.wait()


def main() -> int:
    """Takes the arguments; returns the exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long; some seconds more for the end")
    parser.add_argument("--seed", type=int, help="what to play again; by lot if not given")
    parser.add_argument("--world", choices=[*WORLDS, "both"], default="both")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    if arguments.world == "both":
        return both(arguments, seed)
    code = soak(arguments.world, seed, began + arguments.minutes * 60)
    if code:
        say(f"replay: {' '.join(REPLAY)} --minutes {arguments.minutes} --seed {seed} --world {arguments.world}")
    return code


if __name__ == "__main__":
    sys.exit(main())
