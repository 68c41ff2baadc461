"""Done-callbacks added after the end of a call; `test_queued` covers those added before."""

from __future__ import annotations

from typing import Any

import pytest

from grpcpool import ChannelPool
from support.call_server import UU, CallServer, new_tag
from support.ways import NOT_BLOCKING, Way

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_added_to_a_call_that_was_cancelled_while_it_ran(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """A callback added after `cancel()` is called at once, as by gRPC, even if gRPC has not finished the call."""
    told: list[Any] = []
    tag = new_tag()
    call = way.begin(single, f"hold:{tag}")
    calls.wait_until_held(tag)
    call.cancel()
    call.add_done_callback(told.append)
    assert told == [call]


def test_a_callback_that_raises_after_the_end(single: ChannelPool, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a callback is logged, also if the call was over when the callback was added."""
    call = Way("unary_unary", "future", UU).begin(single)
    assert call.result(20)

    def fail(call: Any) -> None:
        raise ArithmeticError("a callback failed, as the test wants")

    call.add_done_callback(fail)
    assert "a callback of a call failed" in caplog.text
