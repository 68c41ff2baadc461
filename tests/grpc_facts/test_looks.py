"""Before 1.80, gRPC is made to look at its connections by short waits; forks and these waits exclude each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from grpcpool._grpc import connectivity, looks
from support.waiting import LONG, background, eventually


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(looks, "_LONGEST", LONG)
    monkeypatch.setattr(connectivity, "NOTICES_LOSSES", False)
    yield
    assert (looks._running, looks._forking) == (set(), [])


def test_a_fork_waits_for_the_looks_that_run() -> None:
    """It begins when they have ended."""
    looking, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        looking.set()
        assert go_on.wait(LONG)

    look = background(lambda: looks.look(wait))
    assert looking.wait(LONG)
    fork = background(looks.before_fork)
    eventually(lambda: looks._forking)
    assert not fork.done()
    go_on.set()
    fork.result(LONG)
    look.result(LONG)
    looks.after_fork()


def test_a_fork_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that the fork itself has interrupted does not end before it; in the child it is gone."""
    monkeypatch.setattr(looks, "_LONGEST", 0.0)
    looks.look(looks.before_fork)
    looks._running.add("of another thread")
    looks.after_fork_in_child()


def test_no_look_waits_during_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is asked for as before; afterwards there are waits again, in the parent and in the child."""
    waits: list[object] = []
    monkeypatch.setattr(connectivity.NativeConnectivity, "wait_for_change", lambda *asked: waits.append(asked))
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        known = connectivity.connectivity_of(channel)
        for after in (looks.after_fork, looks.after_fork_in_child):
            waits.clear()
            looks.before_fork()
            assert known.look(connect=False) is grpc.ChannelConnectivity.IDLE
            assert waits == []
            after()
            assert known.look(connect=False) is grpc.ChannelConnectivity.IDLE
            assert len(waits) == 1
