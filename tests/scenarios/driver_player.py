"""What the players of both drivers share: the pool's own clock, and fake channels that know their number."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from grpcpool import PoolStats
from grpcpool.testing import ManualClock

from .log import Log, error_text

METHOD = "/story.Story/Call"

REFUSED = "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"

WHO: contextvars.ContextVar[str | None] = contextvars.ContextVar("who", default=None)
"""On whose behalf a call is begun."""


class _FakeCall(Protocol):
    def finish(self, responses: Any = ()) -> None: ...
    def fail(self, code: grpc.StatusCode, details: str = "") -> None: ...


class _FakeChannel(Protocol):
    closed: int

    def set_state(self, state: grpc.ChannelConnectivity) -> None: ...


class DriverPlayer:
    """Finds out which fake channel is which connection, and says what becomes of it and of the calls on it."""

    def __init__(self, pool: Any, clock: ManualClock, log: Log) -> None:
        """For `pool`, whose factory makes channels that tell `admitted` of their calls."""
        self._pool = pool
        self._clock = clock
        self._log = log
        self._channels: dict[int, _FakeChannel] = {}
        self._calls: dict[str, _FakeCall] = {}
        self._leases: dict[str, Any] = {}

    def admitted(self, channel: object, call: Any) -> None:
        """A call has begun on a channel. Those of nobody are the pool's own, which finds out why it cannot connect."""
        who = WHO.get()
        if who is None:
            call.fail(grpc.StatusCode.UNAVAILABLE, "the connection was refused")
            return
        (number,) = [number for number, known in self._channels.items() if known is channel]
        self._calls[who] = call
        self._log.answer(who, number)

    def leased(self, who: str, lease: Any) -> None:
        """Somebody has got a lease."""
        self._leases[who] = lease
        number = re.search(r"of channel (\d+)", repr(lease))
        assert number is not None
        self._log.answer(who, int(number[1]))

    def failed(self, who: str, error: BaseException) -> None:
        """Somebody has got an error."""
        self._log.answer(who, error_text(error))

    def _do(self, work: Callable[[], object]) -> None:
        """Does what does not block, where the pool is at home."""
        work()

    # --- operations that do not block ---------------------------------------------------------------------------

    def release(self, who: str) -> None:
        """He gives his lease back."""
        self._do(self._leases[who].release)

    def discard(self, who: str) -> None:
        """He gives it back to be closed."""
        self._do(self._leases[who].discard)

    def finish(self, who: str) -> None:
        """The server answers."""
        call = self._calls.pop(who)
        self._do(lambda: call.finish([b""]))

    def fail(self, who: str, code: str) -> None:
        """The call fails."""
        self._fail(who, grpc.StatusCode[code])

    def refuse(self, who: str) -> None:
        """The server refuses the stream."""
        self._fail(who, grpc.StatusCode.UNAVAILABLE, REFUSED)

    def _fail(self, who: str, code: grpc.StatusCode, details: str = "") -> None:
        call = self._calls.pop(who)
        self._do(lambda: call.fail(code, details))

    def resize(self, bounds: dict[str, int]) -> None:
        """The bounds change."""
        self._do(lambda: self._pool.resize(**bounds))

    def refresh(self, what: str) -> None:
        """All connections are to be replaced."""
        self._do(self._pool.refresh)

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._do(lambda: self._clock.advance(seconds))

    # --- connections --------------------------------------------------------------------------------------------

    def connects(self, number: int) -> None:
        """That connection is made."""
        self._set_state(number, grpc.ChannelConnectivity.READY)

    def fails(self, number: int) -> None:
        """That connection cannot be made."""
        self._set_state(number, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    def down(self, number: int) -> None:
        """That connection goes down."""
        self._set_state(number, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    def _set_state(self, number: int, state: grpc.ChannelConnectivity) -> None:
        self._do(lambda: self._channels[number].set_state(state))

    # --- what is seen -------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's own figures."""
        stats: PoolStats = self._pool.stats()
        return stats

    def connections(self) -> int:
        """Channels that are open, of those that the pool has."""
        driver = self._pool._driver
        with driver.lock:
            for slot in driver.machine.fleet.slots:
                if slot.channel is not None:
                    self._channels[slot.id] = slot.channel.channel
        return sum(not channel.closed for channel in self._channels.values())
