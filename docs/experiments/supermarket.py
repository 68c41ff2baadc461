"""Simulates the supermarket model with the pool's own state machine as balancer, beside the theory.

``python docs/experiments/supermarket.py`` simulates, writes ``supermarket.csv`` and draws it; with ``--draw`` it only
draws the existing file. Twenty servers work on one call at a time; others queue. Calls arrive at random moments; their
work varies (exponentially), with mean 1. Nothing is measured: time is simulated, and the figures depend on the seeds
alone.
"""

from __future__ import annotations

import abc
import dataclasses
import heapq
import itertools
import math
import pathlib
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator

from experiment import BENCH, chunks, main, markdown, percentile, pyplot, read

sys.path.append(str(BENCH))

from clients import Client, LeastLoaded, RoundRobin

DATA = pathlib.Path(__file__).with_suffix(".csv")
SERVERS, CALLS, WARM_UP = 20, 100_000, 10_000
LOADS = (0.5, 0.7, 0.9, 0.95)
SEEDS = (1, 2, 3)
TAILS = (2, 3, 5)
LOOK_EVERY = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One balancer at one load, with one seed; the shares are of servers that have at least so many calls."""

    load: float
    balancer: str
    seed: int
    mean: float
    p99: float
    at_least_2: float
    at_least_3: float
    at_least_5: float


# --- the balancers ----------------------------------------------------------------------------------------------------


class Balancer(abc.ABC):
    """Chooses a server for each call."""

    @abc.abstractmethod
    def choose(self, lengths: list[int]) -> tuple[int, Callable[[float], object] | None]:
        """Returns a server, and what to call with the time when the call is over."""


class Choices(Balancer):
    """The shortest queue of some that are drawn at random."""

    def __init__(self, number: int, seed: int) -> None:
        """Draws this many."""
        self._number = number
        self._dice = random.Random(seed)  # noqa: S311 (not a secret)

    def choose(self, lengths: list[int]) -> tuple[int, Callable[[float], object] | None]:
        """Returns one of the shortest of them."""
        drawn = self._dice.sample(range(SERVERS), self._number)
        return min(drawn, key=lengths.__getitem__), None


class Clients(Balancer):
    """Clients that choose by their own calls and know no others; a call comes from one of them at random."""

    def __init__(self, policy: Callable[[int, int], Client], clients: int, seed: int) -> None:
        """Lets each of this many clients know all servers."""
        self._dice = random.Random(seed)  # noqa: S311 (not a secret)
        self._clients = [policy(SERVERS, self._dice.getrandbits(32)) for _ in range(clients)]

    def choose(self, lengths: list[int]) -> tuple[int, Callable[[float], object] | None]:
        """Returns the server that a random client picks."""
        del lengths
        return self._dice.choice(self._clients).choose()


BALANCERS: dict[str, Callable[[int], Balancer]] = {
    "random": lambda seed: Choices(1, seed),
    "shorter of two": lambda seed: Choices(2, seed),
    "shortest of all": lambda seed: Choices(SERVERS, seed),
    "round robin, 1 client": lambda seed: Clients(RoundRobin, 1, seed),
    "round robin, 25 clients": lambda seed: Clients(RoundRobin, 25, seed),
    "grpcpool, 1 client": lambda seed: Clients(LeastLoaded, 1, seed),
    "grpcpool, 5 clients": lambda seed: Clients(LeastLoaded, 5, seed),
    "grpcpool, 25 clients": lambda seed: Clients(LeastLoaded, 25, seed),
}


# --- the theory -------------------------------------------------------------------------------------------------------


def mean_of_choices(load: float, choices: int) -> float:
    """Returns the mean time of a call with this many choices, as the number of servers grows (Mitzenmacher 2001)."""
    if choices == 1:
        return 1 / (1 - load)
    return math.fsum(load ** ((choices**i - choices) / (choices - 1)) for i in range(1, 9))


def tail_of_choices(load: float, choices: int, length: int) -> float:
    """Returns the share of servers with at least `length` calls, as above."""
    exponent = length if choices == 1 else (choices**length - 1) / (choices - 1)
    return math.pow(load, exponent)


def mean_of_one_queue(load: float) -> float:
    """Returns the mean time with one queue for all servers (Erlang C), which no balancer can beat."""
    offered = SERVERS * load
    below = sum(offered**k / math.factorial(k) for k in range(SERVERS))
    full = offered**SERVERS / math.factorial(SERVERS) / (1 - load)
    return 1 + full / (below + full) / (SERVERS * (1 - load))


# --- simulating -------------------------------------------------------------------------------------------------------


def simulate(balancer: Balancer, load: float, seed: int) -> tuple[list[float], dict[int, float]]:
    """Returns the times of the calls, and the shares of servers with at least so many calls."""
    dice = random.Random(seed)  # noqa: S311 (not a secret)
    lengths, free_at = [0] * SERVERS, [0.0] * SERVERS
    ends: list[tuple[float, int, int, Callable[[float], object] | None]] = []
    took: list[float] = []
    looks: deque[list[int]] = deque()
    now = 0.0
    for number in range(WARM_UP + CALLS):
        now += dice.expovariate(SERVERS * load)
        while ends and ends[0][0] <= now:
            at, _, server, over = heapq.heappop(ends)
            lengths[server] -= 1
            if over is not None:
                over(at)
        if number >= WARM_UP and number % LOOK_EVERY == 0:
            looks.append(lengths.copy())
        server, over = balancer.choose(lengths)
        lengths[server] += 1
        free_at[server] = max(now, free_at[server]) + dice.expovariate(1)
        heapq.heappush(ends, (free_at[server], number, server, over))
        if number >= WARM_UP:
            took.append(free_at[server] - now)
    seen = [*itertools.chain.from_iterable(looks)]
    return took, {length: sum(one >= length for one in seen) / len(seen) for length in TAILS}


def rows() -> Iterator[Row]:
    """Simulates everything."""
    for load, (name, make), seed in itertools.product(LOADS, BALANCERS.items(), SEEDS):
        took, tails = simulate(make(seed), load, seed)
        yield Row(
            load=load,
            balancer=name,
            seed=seed,
            mean=round(statistics.fmean(took), 3),
            p99=round(percentile(took, 99), 2),
            at_least_2=round(tails[2], 5),
            at_least_3=round(tails[3], 5),
            at_least_5=round(tails[5], 5),
        )


# --- drawing ----------------------------------------------------------------------------------------------------------


def means() -> dict[tuple[str, str], dict[str, float]]:
    """Returns the means over the seeds, by load and balancer."""
    names = ("mean", "p99", "at_least_2", "at_least_3", "at_least_5")
    return {
        (load, balancer): {name: statistics.fmean(float(row[name]) for row in of_both) for name in names}
        for (load, balancer), of_both in chunks(read(DATA), "load", "balancer")
    }


def draw() -> None:
    """Draws the file into ``supermarket.svg``."""
    plt = pyplot(DATA.stem)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    found = means()
    for balancer, style in zip(BALANCERS, ("o", "s", "v", "x-", "x:", "D-", "D--", "D:"), strict=True):
        axes[0].plot(LOADS, [found[str(load), balancer]["mean"] for load in LOADS], style, label=balancer)
        tails = [found["0.9", balancer][f"at_least_{length}"] for length in TAILS]
        axes[1].plot(TAILS, [100 * tail or math.nan for tail in tails], style)
    curve = [0.5 + step / 200 for step in range(92)]
    for choices, colour in ((1, "tab:blue"), (2, "tab:orange")):
        label = f"theory: {choices} choice{'s' * (choices > 1)}"
        axes[0].plot(curve, [mean_of_choices(load, choices) for load in curve], color=colour, lw=0.8, label=label)
        axes[1].plot(TAILS, [100 * tail_of_choices(0.9, choices, one) for one in TAILS], color=colour, lw=0.8)
    axes[0].plot(curve, [mean_of_one_queue(load) for load in curve], "k", lw=0.8, label="theory: one queue for all")
    axes[0].set(title="mean time of a call (its work: 1)", xlabel="load", ylim=(0.8, 6))
    axes[1].set(title="servers with at least so many calls, %, load 0.9", xlabel="calls", yscale="log", xticks=TAILS)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page."""
    found = means()
    lines = []
    for load in LOADS:
        for choices, name in ((1, "random"), (2, "shorter of two")):
            tails = (f"{100 * tail_of_choices(load, choices, length):.2f}" for length in TAILS)
            lines.append([f"{load:g}", f"theory: {name}", f"{mean_of_choices(load, choices):.2f}", "", *tails])
        lines.append([f"{load:g}", "theory: one queue for all", f"{mean_of_one_queue(load):.2f}", "", "", "", ""])
        for balancer in BALANCERS:
            figures = found[str(load), balancer]
            tails = (f"{100 * figures[f'at_least_{length}']:.2f}" for length in TAILS)
            lines.append([f"{load:g}", balancer, f"{figures['mean']:.2f}", f"{figures['p99']:.1f}", *tails])
    return markdown(["load", "balancer", "mean time", "p99", *(f"at least {one} calls, %" for one in TAILS)], lines)


if __name__ == "__main__":
    main("Simulates the supermarket model.", DATA, rows, draw, table)
