"""A successor that cannot be opened."""

from __future__ import annotations

import time
from typing import Any

import pytest

from resilience.worlds import World
from support.connections import addresses_of_connections_to
from support.servers import SLOW, Server, dead_target
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)


def test_a_failing_successor_keeps_the_old_one_in_service(world: World, mortal: Server) -> None:
    """While successors fail, one is tried at a time, 4 to 7 times in 3 s, and both old connections serve every call.

    Once successors can be opened, both are replaced.
    """
    with dead_target() as dead:
        well, failing = world.channel_maker(mortal.target), world.channel_maker(dead)
        makers = [well]

        def make() -> Any:
            return makers[-1]()

        with world.pool_over(make, min_size=2, max_size=2) as subject:
            subject.open()
            old = addresses_of_connections_to(mortal.port)
            with subject.load(10, SLOW, b"5") as load:
                makers.append(failing)
                subject.do(lambda pool: pool.refresh())
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    assert subject.stats().opening <= 1
                    assert subject.stats().ready == 2
                    time.sleep(0.02)
                assert 4 <= subject.stats().open_failures <= 7
                assert addresses_of_connections_to(mortal.port) == old
                makers.append(well)
                eventually(lambda: subject.stats().closed["refresh"] == 2)
            load.assert_none_failed()
            assert len(old) == 2
            assert old.isdisjoint(addresses_of_connections_to(mortal.port))
