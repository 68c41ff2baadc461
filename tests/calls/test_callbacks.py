"""Done-callbacks that are added when a call is over; `test_queued` has those that are added before."""

from __future__ import annotations

from typing import Any

import pytest

from grpcpool import ChannelPool
from support.call_server import UU, CallServer, new_tag
from support.ways import NOT_BLOCKING, Way

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_added_to_a_call_that_was_cancelled_while_it_ran(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """It is over at once, whatever gRPC has still to do: the callback is called at once, as by gRPC."""
    told: list[Any] = []
    tag = new_tag()
    call = way.begin(single, f"hold:{tag}")
    calls.wait_until_held(tag)
    call.cancel()
    call.add_done_callback(told.append)
    assert told == [call]


def test_what_raises_when_the_call_is_over(single: ChannelPool, caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is logged whether the call is over by now or not: nobody can know beforehand."""
    call = Way("unary_unary", "future", UU).begin(single)
    assert call.result(20)

    def fail(call: Any) -> None:
        raise ArithmeticError("a callback failed, as the test wants")

    call.add_done_callback(fail)
    assert "a callback of a call failed" in caplog.text
