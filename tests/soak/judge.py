"""Whether the books balance, at the end of each round and of the soak; and the figures to print."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from grpcpool import PoolStats
from soak.book import LATE, Book, Call
from soak.journal import Journal, Witness
from soak.remains import memory, stacks
from soak.servers import Server
from soak.verdict import Weather, explanation_of, too_many_of_a_kill
from soak.wishes import PATIENCE
from soak.world import World
from support.connections import connections_to

# Seconds in which everything comes to rest when all is well, on a busy machine.
_REST = 10.0
# Seconds in which a caller ends what it is doing: an acquire, and two calls over its lease.
_TO_END = 3 * (PATIENCE + LATE)
# MiB by which memory may grow after the first round. Arenas of threads, and what gRPC keeps for reuse, come and go; a
# kilobyte lost with each call would be more after a minute.
_GROWTH = 12.0
# The number of failures of one sort that are printed in full.
_SHOWN = 5


class Judge:
    """Checks the book, the system, the servers, and the pool's own figures."""

    def __init__(self, world: World, servers: Sequence[Server], journal: Journal, book: Book, witness: Witness) -> None:
        """Starts with nothing wrong."""
        self.wrong: list[str] = []
        self._world = world
        self._servers = servers
        self._journal = journal
        self._book = book
        self._witness = witness
        self._explained: Counter[tuple[str, str]] = Counter()
        self._memory: list[float] = []
        self._calm = self._raged = 0.0
        self._round_began = time.monotonic()

    # --- the end of a round ---------------------------------------------------------------------------------------

    def end_of_round(self) -> None:
        """Checks a round, after all troubles have ended."""
        healed = time.monotonic()
        if not self._world.stop_callers(_TO_END) or self._book.open:
            self._hangs()
            return
        calls = self._book.take_to_explain()
        weather = Weather(
            self._journal.troubles, len(self._servers), refusing=any(server.limit for server in self._servers)
        )
        self._explain(calls, weather)
        self.wrong += too_many_of_a_kill(calls, weather)
        self._calm += weather.calm(self._round_began, healed, whole=False)
        self._raged += healed - self._round_began
        self._at_rest()
        self._memory.append(memory())
        self._round_began = time.monotonic()

    def _hangs(self) -> None:
        """Reports calls that do not end."""
        for call in self._book.open[:_SHOWN]:
            self._report("has not ended", call)
        self.wrong.append(f"{len(self._book.open)} calls, or their callers, have not ended\n{stacks()}")

    def _explain(self, calls: list[Call], weather: Weather) -> None:
        strange: dict[tuple[str, str], list[Call]] = {}
        for call in calls:
            why = explanation_of(call, weather)
            if why is None:
                strange.setdefault((call.name, call.outcome), []).append(call)
            else:
                self._explained[call.outcome, why] += 1
        for (name, outcome), alike in strange.items():
            self.wrong.append(f"{len(alike)} of {name!r} ended {outcome} without an explanation")
        for alike in list(strange.values())[:_SHOWN]:
            self._report("for example", alike[0])

    def _report(self, what: str, call: Call) -> None:
        """Reports a call, and what was done meanwhile."""
        at, now = self._journal.at, time.monotonic()
        story = "\n".join(self._journal.around(call.began, min(call.ended, now)))
        flags = ("waits", "whole", "sent_once", "on_lease", "by_pool", "cancelled_by_chaos")
        is_ = ", ".join(flag for flag in flags if getattr(call, flag))
        self.wrong.append(
            f"{what}: call {call.number} of {call.caller}, {call.name!r} ({is_})\n"
            f"from {at(call.began)} to {at(call.ended)}, due {at(call.due)}: {call.outcome}\n"
            f"{call.details}\nmeanwhile:\n{story}"
        )

    def _at_rest(self) -> None:
        world = self._world
        self._becomes(lambda: (world.stats().in_flight, world.stats().waiting) == (0, 0), "not at rest")
        self._becomes(lambda: all(server.running() == 0 for server in self._servers), "a server still runs calls")
        self._becomes(self._is_all_ready, "not all connections are ready and real")
        self._check_counts(world.stats())
        self._check_events()

    def _becomes(self, is_so: Callable[[], bool], else_: str) -> None:
        deadline = time.monotonic() + _REST
        while not is_so():
            if time.monotonic() > deadline:
                self.wrong.append(
                    f"{else_} after {_REST} s: {self._world.stats()}, {self._connections()} connections,"
                    f" events {dict(self._witness.counts)}"
                )
                return
            time.sleep(0.02)

    def _is_all_ready(self) -> bool:
        stats = self._world.stats()
        return stats.ready == stats.size == self._connections()

    def _connections(self) -> int:
        return sum(connections_to(server.port) for server in self._servers)

    # --- what the pool counts -------------------------------------------------------------------------------------

    def _check_counts(self, stats: PoolStats) -> None:
        """Compares what the pool counted with what the callers did."""
        book, events = self._book, self._witness.counts
        closed = sum(stats.closed.values())
        again = stats.refused_streams + self._witness.unsent
        for holds, what in (
            (
                stats.opened - closed == stats.size - stats.opening,
                "opened minus closed is not the number of open connections",
            ),
            (
                book.placed <= stats.acquired <= book.placed + book.unclear + again,
                "acquired is not the number of calls with places",
            ),
            (
                book.timed_out <= stats.timeouts <= book.timed_out + book.unclear,
                "timeouts is not the number of calls that timed out",
            ),
            (stats.rejected == 0, "calls were rejected with room for more waiters"),
            (events["leaked"] == 0, "a lease was reported as leaked"),
            (self._witness.cut == 0, "connections were closed with calls on them"),
        ):
            if not holds:
                self.wrong.append(
                    f"{what}: {stats}; of {book.asked} that asked {book.placed} had places, {book.timed_out} timed out,"
                    f" {book.unclear} may have; {self._witness.unsent} were never sent; events"
                    f" {dict(events)}, cut off {self._witness.cut}"
                )

    def _check_events(self) -> None:
        """Compares what the pool counted with its events, which are emitted after the count, by any thread.

        Even at rest connections are replaced for their age, and closed when idle.
        """
        counted, emitted = "what the pool counted is not the number of its", self._witness.counts
        self._becomes(lambda: self._world.stats().opened == emitted["opened"], f"{counted} opened events")
        self._becomes(lambda: sum(self._world.stats().closed.values()) == emitted["closed"], f"{counted} closed events")

    # --- the end --------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Closes the pool, which is at rest; then nothing of it may be left."""
        self._world.close()
        stats = self._world.stats()
        if (stats.size, stats.in_flight, stats.waiting) != (0, 0, 0):
            self.wrong.append(f"the closed pool is not empty: {stats}")
        self._check_counts(stats)
        self._check_events()
        self.wrong += self._world.left()
        self._becomes(lambda: self._connections() == 0, "connections are left")
        if len(self._memory) > 1 and self._memory[-1] > self._memory[0] + _GROWTH:
            grown = ", ".join(f"{memory:.1f}" for memory in self._memory)
            self.wrong.append(f"memory grew by more than {_GROWTH} MiB after the first round: {grown}")

    # --- figures --------------------------------------------------------------------------------------------------

    def progress(self) -> str:
        """The state of the soak, in a line."""
        stats, book = self._world.stats(), self._book
        well = sum(number for (_, outcome), number in book.counts.items() if outcome == "ok")
        return (
            f"{book.begun} calls, {well} ok, {len(book.open)} open; {stats.size} connections, {stats.ready} ready,"
            f" {stats.in_flight} in flight, {stats.waiting} waiting; {memory():.0f} MiB"
        )

    def table(self) -> str:
        """How the calls ended, and why."""
        stats = self._world.stats()
        lines = [f"{'calls':26} outcomes"]
        for name in sorted({name for name, _ in self._book.counts}):
            of_it = {outcome: number for (other, outcome), number in self._book.counts.items() if other == name}
            lines.append(f"{name:26} {', '.join(f'{outcome} {of_it[outcome]}' for outcome in sorted(of_it))}")
        lines += [f"{number:6} {code}: {why}" for (code, why), number in sorted(self._explained.items())]
        lines.append(
            f"acquired {stats.acquired}, waited {stats.waited}, timeouts {stats.timeouts}, refused streams"
            f" {stats.refused_streams}, opened {stats.opened}, open failures {stats.open_failures}, closed"
            f" { ({reason: number for reason, number in stats.closed.items() if number}) }"
        )
        memory_ = ", ".join(f"{memory:.1f}" for memory in self._memory)
        lines.append(f"{self._calm:.0f} of {self._raged:.0f} s without trouble; MiB after each round: {memory_}")
        return "\n".join(lines)
