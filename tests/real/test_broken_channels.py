"""The close of channels whose thread is missing, because a signal handler raised while gRPC was starting it."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpcpool._sync.slot_channel import SyncSlotChannel
from support.connections import connections_to
from support.servers import COUNT, Server
from support.waiting import LONG, eventually


class _SignalError(Exception):
    """What a signal handler raises."""


class _Layer:
    """A channel that passes on all that the one within it has, as programs wrap channels."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def _interrupt(frame: types.FrameType, event: str, _: object) -> Any:
    if event == "call" and frame.f_code is threading.Thread.start.__code__:
        sys.settrace(None)
        raise _SignalError
    return _interrupt


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """One with a stream that nothing serves."""
    with server.channel() as made:
        sys.settrace(_interrupt)
        try:
            counts: Any = made.unary_stream(COUNT)
            counts(b"1000000,1")
        except _SignalError:
            pass
        finally:
            sys.settrace(None)
        eventually(lambda: connections_to(server.port) == 1)
        yield made


def test_a_layer_that_passes_on_what_it_wraps(server: Server, channel: grpc.Channel) -> None:
    """The channel below it is found, and closed."""
    layer: Any = _Layer(channel)
    slot_channel = SyncSlotChannel(layer)
    slot_channel.broken = True
    closing = threading.Thread(target=slot_channel.close, daemon=True)
    closing.start()
    closing.join(LONG)
    assert not closing.is_alive()
    eventually(lambda: connections_to(server.port) == 0)


def test_no_thread_can_be_started(server: Server, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter exits: the close does not wait forever for what nothing serves."""
    slot_channel = SyncSlotChannel(channel)
    slot_channel.broken = True
    may_close = threading.Event()

    def close() -> None:
        may_close.wait(LONG)
        slot_channel.close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        may_close.set()
        closing.join(LONG)
        assert not closing.is_alive()
    slot_channel.close()
    eventually(lambda: connections_to(server.port) == 0)
