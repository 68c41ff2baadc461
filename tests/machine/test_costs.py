"""What the steps of a large pool cost, as counts: the same on every machine, every time.

A step may look at each connection, or at each address. It must not do so once for each of them: then it would hold up
every call of a pool of a thousand for a second.
"""

from __future__ import annotations

import math

from bench_gates.counting import Calls
from grpcpool._machine.addresses import Leads
from grpcpool._machine.effects import Open
from grpcpool._machine.queue import Waiter
from machine.play import Play

_FEW, _MANY = 50, 100

# The cost may be twice that of half as many, and a little more: some of it does not depend on the number.
_TWICE = 2.2


class _Counted(Waiter):
    """A waiter that counts how often it is asked whether it would rather fail."""

    looks = 0

    @property
    def fail_fast(self) -> bool:
        """Whether it would."""
        type(self).looks += 1
        return self._fails

    @fail_fast.setter
    def fail_fast(self, fails: bool) -> None:
        self._fails = fails


def _looks_of_one_more(play: Play, waiting: int) -> int:
    """How often waiters are looked at when one more waits behind so many that would rather wait."""

    class Here(_Counted):
        pass

    def ask() -> None:
        waiter = Here(1, since=play.now, deadline=math.inf)
        play.did(play.recorder.effects(play.machine.request, waiter, play.now))
        assert waiter.queued

    for _ in range(waiting):
        ask()
    Here.looks = 0
    ask()
    return Here.looks


def test_a_call_that_waits_for_a_lost_connection_looks_at_no_other() -> None:
    """With `wait_for_ready`, while the only connection is down, the cost does not depend on how many wait."""
    play = Play(max_size=1, max_waiters=None)
    play.request(1)
    play.opened(1)
    play.lost(1)
    assert _looks_of_one_more(play, 200) < 5


def test_a_call_that_waits_while_nothing_can_be_dialled_looks_at_no_other() -> None:
    """The same while the next attempt to connect pauses."""
    play = Play(max_size=1, max_waiters=None)
    play.request(1)
    play.failed(1)
    assert _looks_of_one_more(play, 200) < 5


def test_connecting_costs_as_much_for_each_connection() -> None:
    """However many connections are being dialled, one more costs the same."""

    def cost(number: int) -> int:
        play = Play(min_size=number, max_size=number)
        with Calls() as calls:
            effects = play.recorder.effects(play.machine.connect, play.now)
        assert sum(isinstance(effect, Open) for effect in effects) == number
        return calls.python.total()

    assert cost(_MANY) <= _TWICE * cost(_FEW)


def test_the_first_addresses_cost_as_much_for_each_connection() -> None:
    """All connections have waited for the first look-up, and are dialled in one step."""

    def cost(number: int) -> int:
        play = Play(min_size=number, max_size=number, leads=Leads(looks=True, every=30.0))
        play.request(1)
        play.tick()
        with Calls() as calls:
            dialled = play.found(*(f"10.0.0.{each}:1" for each in range(number)))
        assert len(dialled) == number
        return calls.python.total()

    assert cost(_MANY) <= _TWICE * cost(_FEW)


def test_a_step_costs_as_much_for_each_address_that_is_gone() -> None:
    """All addresses of a pool are replaced by others: what follows looks at each connection a few times."""

    def cost(number: int) -> int:
        leads = Leads(looks=True, every=30.0)
        play = Play(min_size=number, max_size=number, leads=leads, random=lambda: 0.5)
        play.request(1)
        play.found(*(f"10.0.0.{each}:1" for each in range(number)))
        for each in [*play.slots]:
            play.opened(each)
        play.tick(29.0)
        play.found(*(f"10.0.1.{each}:1" for each in range(number)))
        dialled = [effect for effect in play.effects if isinstance(effect, Open)]
        assert len(dialled) == -(-number // 4)
        with Calls() as calls:
            play.machine.opened(dialled[0].slot, object(), play.now)
        return calls.python.total()

    assert cost(_MANY) <= _TWICE * cost(_FEW)
