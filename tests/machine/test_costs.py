"""What the steps of a large pool cost, as counts: the same on every machine, every time.

A step may look at each connection, or at each address. It must not do so once for each of them: then it would hold up
every call of a pool of a thousand for a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bench_gates.counting import Calls
from grpcpool._machine.addresses import Addressing
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
        play = Play(min_size=number, max_size=number, addressing=Addressing(looked_up=True, every=30.0))
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
        addressing = Addressing(looked_up=True, every=30.0)
        play = Play(min_size=number, max_size=number, addressing=addressing, random=lambda: 0.5)
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


def _ready(number: int, **config: Any) -> Play:
    """A pool with this many ready connections, to half as many addresses."""
    addressing = Addressing(addresses=[f"10.0.0.{each}:1" for each in range(number // 2)], every=1e6)
    play = Play(min_size=number, max_size=number, addressing=addressing, random=lambda: 0.5, **config)
    play.open()
    for each in [*play.slots]:
        play.machine.opened(play[each], object(), play.now)
    play.recorder.take()
    return play


def _cost(event: Callable[..., object], *arguments: Any) -> int:
    """How often functions are called in one step, and loops of these repeat."""
    with Calls() as calls:
        event(*arguments)
    return calls.python.total()


def test_connections_to_known_addresses_cost_as_much_for_each() -> None:
    """All of them are dialled in one step, and later replaced, a quarter in one step."""

    def costs(number: int) -> tuple[int, int]:
        addressing = Addressing(addresses=[f"10.0.0.{each}:1" for each in range(8)], every=1e6)
        play = Play(min_size=number, max_size=number, addressing=addressing, random=lambda: 0.5)
        connecting = _cost(play.machine.connect, play.now)
        for slot in play.machine.fleet.slots:
            play.machine.opened(slot, object(), play.now)
        return connecting, _cost(play.machine.refresh, play.now)

    (few_dialled, few_replaced), (many_dialled, many_replaced) = costs(_FEW), costs(_MANY)
    assert many_dialled <= _TWICE * few_dialled
    assert many_replaced <= _TWICE * few_replaced


def test_fewer_connections_cost_as_much_for_each() -> None:
    """A pool is resized to one connection."""

    def cost(number: int) -> int:
        play = _ready(number)
        cost = _cost(play.machine.resize, 1, 1, play.now)
        assert play.stats.size == 1
        return cost

    assert cost(_MANY) <= _TWICE * cost(_FEW)


def test_idle_connections_cost_as_much_for_each() -> None:
    """All of a pool have been idle for long enough."""

    def cost(number: int) -> int:
        play = _ready(number, idle_timeout=10.0)
        play.resize(2, number)
        play.now += 10.0
        cost = _cost(play.machine.tick, play.now)
        assert play.stats.size == 2
        return cost

    assert cost(_MANY) <= _TWICE * cost(_FEW)


@pytest.mark.parametrize("after", [1.0, 10.0])
def test_dials_that_take_too_long_cost_as_much_for_each(after: float) -> None:
    """All of them hang, or all are late."""

    def cost(number: int) -> int:
        addressing = Addressing(addresses=[f"10.0.0.{each}:1" for each in range(number)], every=1e6)
        play = Play(min_size=number, max_size=number, addressing=addressing, random=lambda: 0.5)
        play.machine.connect(play.now)
        play.now += after
        return _cost(play.machine.tick, play.now)

    assert cost(_MANY) <= _TWICE * cost(_FEW)


@pytest.mark.parametrize("event", ["tick", "close"])
def test_waiters_that_are_refused_cost_the_same_in_a_large_pool(event: str) -> None:
    """Those whose time has come, and those of a pool that is closed: their errors share what must be summed up."""

    def cost(number: int) -> int:
        play = _ready(number)
        for _ in range(number):
            assert play.acquire(None) is not None
        for _ in range(10 * number):
            play.machine.request(Waiter(None, since=play.now, deadline=play.now + 5.0), play.now)
        play.now += 5.0
        cost = _cost(play.machine.tick, play.now) if event == "tick" else _cost(play.close)
        assert play.stats.waiting == 0
        return cost

    assert cost(_MANY) <= _TWICE * cost(_FEW)


def test_connections_that_are_all_silent_cost_as_much_for_each() -> None:
    """On each of them, several calls have run into their deadlines."""

    def cost(number: int) -> int:
        play = _ready(number)
        for slot in play.slots.values():
            for _ in range(3):
                play.machine.unanswered(slot, None, play.now, play.now)
        return _cost(play.machine.tick, play.now + 30.0)

    assert cost(_MANY) <= _TWICE * cost(_FEW)


def test_a_failed_dial_costs_as_much_for_each_connection() -> None:
    """Half of the servers are down: their connections are lost."""

    def cost(number: int) -> int:
        play = _ready(number)
        play.resize(0, number + 1)
        for each in range(1, number, 2):
            play.machine.lost(play[each], None, play.now)
        play.recorder.take()
        dialled = play.machine.fleet.dial(play.now)
        return _cost(play.machine.open_failed, dialled, ConnectionError("refused"), play.now)

    assert cost(_MANY) <= _TWICE * cost(_FEW)


@pytest.mark.parametrize("config", [{}, {"max_waiters": 0}])
def test_what_asks_once_pays_for_its_numbers_once(config: dict[str, Any]) -> None:
    """A pool under overload refuses most of what is asked for: the numbers of each error are made once."""
    play = Play(min_size=1, max_size=1, max_streams=1, **config)
    play.open()
    play.opened(1)
    play.acquire(None)
    waiter = Waiter(1, since=play.now, deadline=play.now)
    with Calls() as calls:
        play.machine.request(waiter, play.now)
    assert waiter.refusal is not None
    # None are copied.
    assert (calls.python["figures_of"], calls.inside("dataclasses.py")) == (1, 0)
