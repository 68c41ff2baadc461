"""What the players of both drivers share: the pool's own clock, and fake channels matched with their slots."""

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

CALLER: contextvars.ContextVar[str | None] = contextvars.ContextVar("caller", default=None)
"""The caller that begins a call."""


class _FakeCall(Protocol):
    def finish(self, responses: Any = ()) -> None: ...
    def fail(self, code: grpc.StatusCode, details: str = "") -> None: ...


class _FakeChannel(Protocol):
    closed: int

    def set_state(self, state: grpc.ChannelConnectivity) -> None: ...


class DriverPlayer:
    """Matches fake channels with the pool's slots, and controls them and the calls on them."""

    def __init__(self, pool: Any, clock: ManualClock, log: Log, addresses: list[str] | None) -> None:
        """For `pool`, whose factory creates channels that report their calls to `admitted`."""
        self._addresses = addresses or []
        self._pool = pool
        self._clock = clock
        self._log = log
        self._channels: dict[int, _FakeChannel] = {}
        self._calls: dict[str, _FakeCall] = {}
        self._leases: dict[str, Any] = {}

    def admitted(self, channel: object, call: Any) -> None:
        """A call has begun on a channel. A call without a caller is the pool's own probe for the connect error."""
        caller = CALLER.get()
        if caller is None:
            call.fail(grpc.StatusCode.UNAVAILABLE, "the connection was refused")
            return
        (number,) = [number for number, known in self._channels.items() if known is channel]
        self._calls[caller] = call
        self._log.answer(caller, number)

    def leased(self, caller: str, lease: Any) -> None:
        """The caller has a lease."""
        self._leases[caller] = lease
        number = re.search(r"of channel (\d+)", repr(lease))
        assert number is not None
        self._log.answer(caller, int(number[1]))

    def failed(self, caller: str, error: BaseException) -> None:
        """The caller has an error."""
        self._log.answer(caller, error_text(error))

    def _do(self, work: Callable[[], object]) -> None:
        """Runs something that does not block, where the pool lives."""
        work()

    # --- operations that do not block ---------------------------------------------------------------------------

    def release(self, caller: str) -> None:
        """The caller releases its lease."""
        self._do(self._leases[caller].release)

    def discard(self, caller: str) -> None:
        """The caller discards its lease."""
        self._do(self._leases[caller].discard)

    def finish(self, caller: str) -> None:
        """The server answers."""
        call = self._calls.pop(caller)
        self._do(lambda: call.finish([b""]))

    def fail(self, caller: str, code: str) -> None:
        """The call fails; at its deadline in gRPC's own words."""
        self._fail(caller, grpc.StatusCode[code], "Deadline Exceeded" if code == "DEADLINE_EXCEEDED" else "")

    def refuse(self, caller: str) -> None:
        """The server refuses the stream."""
        self._fail(caller, grpc.StatusCode.UNAVAILABLE, REFUSED)

    def _fail(self, caller: str, code: grpc.StatusCode, details: str = "") -> None:
        call = self._calls.pop(caller)
        self._do(lambda: call.fail(code, details))

    def resize(self, bounds: dict[str, int]) -> None:
        """The bounds change."""
        self._do(lambda: self._pool.resize(**bounds))

    def finds(self, addresses: list[str] | str) -> None:
        """From now on look-ups find these."""
        self._addresses = [] if isinstance(addresses, str) else addresses

    def look_up(self) -> list[str]:
        """What look-ups find.

        Raises:
            OSError: Nothing.
        """
        if not self._addresses:
            raise OSError("no such name")
        return self._addresses

    def refresh(self, what: str) -> None:
        """`refresh()` is called."""
        self._do(self._pool.refresh)

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._do(lambda: self._clock.advance(seconds))

    # --- connections --------------------------------------------------------------------------------------------

    def connects(self, number: int) -> None:
        """The connection is ready."""
        self._set_state(number, grpc.ChannelConnectivity.READY)

    def fails(self, number: int) -> None:
        """The connection could not be opened."""
        self._set_state(number, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    def down(self, number: int) -> None:
        """The connection goes down."""
        self._set_state(number, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    def _set_state(self, number: int, state: grpc.ChannelConnectivity) -> None:
        self._do(lambda: self._channels[number].set_state(state))

    # --- observation --------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's own snapshot."""
        stats: PoolStats = self._pool.stats()
        return stats

    def connections(self) -> int:
        """The number of open channels among those of the pool."""
        driver = self._pool._driver
        with driver.lock:
            for slot in driver.machine.fleet.slots:
                if slot.channel is not None:
                    self._channels[slot.id] = slot.channel.channel
        return sum(not channel.closed for channel in self._channels.values())
