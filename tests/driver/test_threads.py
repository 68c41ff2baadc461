"""The threads that open and close connections."""

from __future__ import annotations

import threading

import pytest

from grpcpool._sync.threads import Threads
from support.waiting import LONG, background

pytestmark = pytest.mark.timeout(60)


def test_a_thread_that_another_one_has_started_is_waited_for() -> None:
    """As the one that closes a connection that has been opened too late."""
    threads, first, second = Threads("test", threading.RLock()), threading.Event(), threading.Event()
    ended: list[str] = []

    def open_and_close() -> None:
        first.wait(LONG)
        threads.run(close, "close")

    def close() -> None:
        second.wait(LONG)
        ended.append("close")

    threads.run(open_and_close, "open")
    assert not threads.join(0.0)
    joining = background(lambda: threads.join(LONG))
    first.set()
    assert not threads.join(0.0)
    second.set()
    assert joining.result(LONG)
    assert ended == ["close"]
