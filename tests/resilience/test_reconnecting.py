"""How often lost connections try to reconnect, and how evenly their attempts are spread."""

from __future__ import annotations

import time

import pytest

from resilience.servers import HangsUp
from resilience.worlds import World
from support.connections import connections_to
from support.servers import ECHO, SLOW, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)

CONNECTIONS = 10


def test_ten_connections_reconnect_one_by_one(world: World, mortal: Server) -> None:
    """10 lost connections, whose peer hangs up each time, reconnect one by one, at most 4 times each in 4 s.

    The pool spreads the first attempts over up to 0.45 s; that they all fall within 0.1 s has a chance of 1 in 1,000.
    The next ones are rarer, and spread by gRPC.
    """
    with world.pool(mortal.target, options=[], min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
        subject.open()
        assert connections_to(mortal.port) == CONNECTIONS
        with HangsUp(mortal.port) as door:
            mortal.kill()
            time.sleep(4)
            times = list(door.times)
        assert 2 * CONNECTIONS <= len(times) <= 4 * CONNECTIONS
        first, second = times[:CONNECTIONS], times[CONNECTIONS : 2 * CONNECTIONS]
        assert first[-1] - first[0] >= 0.1
        assert second[-1] - second[0] >= 0.1
        mortal.start()
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        assert subject.call(ECHO, b"a") == b"a"


def test_they_are_spread_under_load(world: World, mortal: Server) -> None:
    """The first attempts are also spread when 40 callers with `wait_for_ready` notice the loss.

    A call that begins in the moment of the kill makes its connection connect at once, as in gRPC; so do calls without
    `wait_for_ready`. Therefore these are more connections, whose attempts the pool spreads over up to 1.45 s.
    """
    connections = 30
    with world.pool(mortal.target, options=[], min_size=connections, max_size=connections) as subject:
        subject.open()
        with subject.load(40, SLOW, b"20", wait_for_ready=True) as load:
            load.wait_for_calls(200)
            with HangsUp(mortal.port) as door:
                mortal.kill()
                times = eventually(lambda: door.times[:connections] if len(door.times) >= connections else [])
            mortal.start()
            eventually(lambda: subject.stats().ready == connections)
            load.wait_for_calls(100)
        assert times[-1] - times[0] >= 0.3
