"""What goes wrong: deeds drawn at random, and done to the servers and the pool.

A seed determines the deeds, their order and their pauses. Whether a deed finds what it needs (a server that is up, a
call to cancel) depends on the machine's speed; a deed that does not is skipped.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from soak.book import Book
from soak.journal import Journal, Kind, Trouble
from soak.servers import Server
from soak.wishes import plain
from soak.world import World
from support.waiting import background

# Average seconds between two deeds. Deeds that make calls fail are rare enough that most of the time all is well.
_PAUSE = 0.25
_DEEDS = {
    "kill": 4,
    "freeze": 4,
    "blackout": 1,
    "refresh": 12,
    "resize": 15,
    "narrow": 6,
    "discard": 15,
    "cancel": 40,
    "burst": 20,
}
_START = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Deed:
    """Something to do, after a pause.

    Attributes:
        pause: Seconds.
        what: The kind of deed.
        server: The server's number.
        lasts: Seconds.
        share: The fraction of calls, or a choice between two variants.
        size: Connections, or calls.
    """

    pause: float
    what: str
    server: int
    lasts: float
    share: float
    size: int


def deeds(rng: random.Random, servers: int) -> Iterator[Deed]:
    """Deeds without end."""
    while True:
        (what,) = rng.choices(list(_DEEDS), list(_DEEDS.values()))
        yield Deed(
            pause=rng.expovariate(1 / _PAUSE),
            what=what,
            server=rng.randrange(servers),
            lasts=rng.uniform(0.1, 1.2),
            share=rng.random(),
            size=rng.randint(0, 10),
        )


class Chaos:
    """Does the deeds."""

    def __init__(self, world: World, servers: Sequence[Server], journal: Journal, book: Book) -> None:
        """Starts with no troubles."""
        self.done: dict[str, int] = dict.fromkeys(_DEEDS, 0)
        self._world = world
        self._servers = servers
        self._journal = journal
        self._book = book
        self._crowd = world.dice("crowd")
        self._lots = world.dice("lots")
        self._deeds = deeds(world.dice("deeds"), len(servers))
        self._well = set(range(len(servers)))
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._starting: list[Future[None]] = []
        self._tight: Trouble | None = None

    def rage(self, until: float, glance: Callable[[], None]) -> None:
        """Does one deed after the other; `glance` is called regularly."""
        next_at = time.monotonic()
        while (now := time.monotonic()) < until:
            if next_at <= now:
                deed = next(self._deeds)
                getattr(self, f"_{deed.what}")(deed)
                next_at = now + deed.pause
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            glance()
            due = [next_at, until, now + 0.5, *(at for at, _, _ in self._later[:1])]
            time.sleep(max(0.0, min(due) - time.monotonic()))

    def heal(self) -> None:
        """Ends all troubles; everything works when this returns."""
        while self._later:
            heapq.heappop(self._later)[2]()
        for started in self._starting:
            started.result(_START)
        self._starting.clear()
        self._resize_to(self._world.setting.config.min_size, self._world.setting.config.max_size)
        self._journal.note("all is well from here on")

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), work))

    def _count(self, deed: Deed) -> None:
        self.done[deed.what] += 1

    # --- the servers --------------------------------------------------------------------------------------------

    def _kill(self, deed: Deed) -> None:
        if deed.server in self._well:
            self._count(deed)
            self._kill_one(deed.server, deed.lasts)

    def _kill_one(self, server: int, lasts: float) -> None:
        self._well.discard(server)
        trouble = self._journal.begin(Kind.KILLED, server, running=len(self._book.open))
        self._servers[server].kill()
        trouble.certain = time.monotonic()
        self._after(lasts, lambda: self._starting.append(background(lambda: self._start(trouble))))

    def _start(self, trouble: Trouble) -> None:
        self._servers[trouble.server].start()
        self._journal.end(trouble)
        self._well.add(trouble.server)

    def _blackout(self, deed: Deed) -> None:
        self._count(deed)
        for server in tuple(self._well):
            self._kill_one(server, deed.lasts)

    def _freeze(self, deed: Deed) -> None:
        if deed.server not in self._well:
            return
        self._count(deed)
        self._well.discard(deed.server)
        trouble = self._journal.begin(Kind.FROZEN, deed.server)
        self._servers[deed.server].freeze()
        self._after(deed.lasts, lambda: self._thaw(trouble))

    def _thaw(self, trouble: Trouble) -> None:
        self._servers[trouble.server].thaw()
        self._journal.end(trouble)
        self._well.add(trouble.server)

    # --- the pool -----------------------------------------------------------------------------------------------

    def _refresh(self, deed: Deed) -> None:
        self._count(deed)
        self._journal.note("refresh()")
        self._world.do(lambda pool: pool.refresh())

    def _resize(self, deed: Deed) -> None:
        """Sets bounds that change nothing for the callers."""
        if self._tight is None:
            self._count(deed)
            config = self._world.setting.config
            self._resize_to(deed.size % (config.max_size + 1), config.max_size + deed.size)

    def _resize_to(self, low: int, high: int) -> None:
        self._journal.note(f"resize({low}, {high})")
        self._world.do(lambda pool: pool.resize(low, high))

    def _narrow(self, deed: Deed) -> None:
        """Sets bounds that make many callers wait."""
        if self._tight is not None:
            return
        self._count(deed)
        self._tight = self._journal.begin(Kind.NARROW)
        self._resize_to(0, 2 + deed.size % 2)
        self._after(deed.lasts, self._widen)

    def _widen(self) -> None:
        assert self._tight is not None
        self._journal.end(self._tight)
        self._tight = None
        self._resize_to(self._world.setting.config.min_size, self._world.setting.config.max_size)

    def _discard(self, deed: Deed) -> None:
        self._count(deed)
        streams = None if deed.share < 0.5 else 1
        self._journal.note(f"a lease of {'all' if streams is None else streams} is to be discarded")
        self._world.discard("discarder", plain(self._crowd, kind="lease"), streams)

    # --- the callers --------------------------------------------------------------------------------------------

    def _cancel(self, deed: Deed) -> None:
        calls = self._book.cancellables()
        chosen = self._lots.sample(calls, round(len(calls) * deed.share * 0.3))
        if chosen:
            self._count(deed)
            self._journal.note(f"{len(chosen)} calls are to be cancelled")
        for call, cancel in chosen:
            self._world.cancel(call, cancel)

    def _burst(self, deed: Deed) -> None:
        self._count(deed)
        self._journal.note(f"{8 * deed.size} calls at once")
        self._world.burst(8 * deed.size, self._crowd)
