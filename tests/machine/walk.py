"""A random walk: steps of a world, one after the other, fast enough to run over many mutants."""

from __future__ import annotations

import math
import random

from machine.settings import REAL, Code, Settings, dice
from machine.world import World


def random_settings(rng: random.Random) -> Settings:
    """Settings of a small pool with short timeouts, so that everything happens soon."""
    max_size = rng.randint(1, 4)
    max_streams = rng.randint(1, 4)
    return Settings(
        min_size=rng.randint(0, max_size),
        max_size=max_size,
        target_streams=rng.randint(1, max_streams),
        max_streams=max_streams,
        loose=rng.random() < 0.4,
        max_overflow=rng.randint(0, 2),
        max_waiters=rng.choice([None, None, 1, 2, 4]),
        idle_timeout=rng.choice([None, 2.0, 4.0]),
        max_age=rng.choice([None, None, 5.0]),
        drain_timeout=rng.choice([0.0, 3.0, 100.0]),
        picker=rng.choice(["least_loaded", "fill", "round_robin"]),
        avoid_after_failure=rng.choice([None, 1.0, 3.0, 3.0]),
        unresponsive_after=rng.choice([None, 1.0, 4.0]),
        addresses=rng.choice([0, 0, 1, 2, 3, 5]),
        either_family=rng.random() < 0.3,
        health=rng.random() < 0.15,
        endpoints=rng.choice([1, 1, 1, 2, 3]),
    )


def random_step(world: World, rng: random.Random) -> None:
    """One random step: requests are frequent, events of the whole pool rare."""
    if world.looks and rng.random() < 0.12:
        number = rng.choice([0, 1, *[len(world.possible)] * 3, rng.randint(0, len(world.possible))])
        names = sorted(rng.sample(world.possible, min(number, len(world.possible))))
        world.looked_up(names, rng.randrange(3) if len(world.looks) > 1 else 0)
        return
    index = rng.randrange(64)
    kind = rng.randrange(100)
    if kind < 28:
        asks = [ask for ask in (1, 1, 2, 3) if ask <= world.config.max_streams]
        streams = rng.choice([None, *asks])
        patience = rng.choice([0.0, 1.0, 3.0, math.inf, math.inf])
        pause = rng.choice([0.0, 0.0, 0.0, 0.0, 0.5])
        fail_fast, fast = rng.random() < 0.4, rng.random() < 0.8
        world.request(streams, patience=patience, fail_fast=fail_fast, fast=fast, pause=pause)
    elif kind < 45:
        world.release(index)
    elif kind < 60:
        world.opened(index)
    elif kind < 72:
        random_time_event(world, rng)
    elif kind < 86:
        steps = (world.open_failed, world.lost, world.recovered, world.recovered, world.discard, world.cancel)
        more = (world.unreachable, world.call_failed, world.extend_opening, world.unfit)
        refused = (world.refused_stream, world.note_refusal)
        sick = (world.failed, world.failed, world.all_failed, world.unanswered, world.blocked)
        rng.choice([*steps, *more, *refused, world.refused_stream, world.refused_stream, *sick])(index)
    elif kind < 99:
        random_pool_event(world, rng)
    elif rng.random() < 0.3:
        world.close(rng.choice([0.0, 2.0]))
    else:
        world.server_gone(index)


def random_time_event(world: World, rng: random.Random) -> None:
    """Ticks at the next deadline, ticks now, or lets time pass without a tick."""
    kind = rng.randrange(3)
    if kind == 0:
        world.tick_in_time()
    elif kind == 1:
        world.tick()
    else:
        world.advance(rng.choice([0.25, 1.0, 5.0]))


def random_pool_event(world: World, rng: random.Random) -> None:
    """One random event of the whole pool, except closing it."""
    kind = rng.randrange(4)
    if kind == 0:
        world.refresh()
    elif kind == 1:
        world.connect()
    elif kind == 2:
        world.open(patience=3.0)
    else:
        max_size = rng.randint(1, 4)
        world.resize(rng.randint(0, max_size), max_size)


def walk(seed: int, steps: int = 100, code: Code = REAL) -> None:
    """Takes random steps through a pool's life, the same steps for the same seed.

    Raises:
        AssertionError: An invariant does not hold, or the machine went wrong in another way.
    """
    rng = dice(seed)
    world = World(random_settings(rng), seed=seed, code=code)
    for _ in range(steps):
        random_step(world, rng)
    world.finish(grace=rng.choice([0.0, 2.0]), rest_first=rng.random() < 0.5)
