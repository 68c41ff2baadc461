"""A slot's `grpc.aio.Channel`, and how it is connected and closed."""

from __future__ import annotations

from typing import Any

import grpc

from .._shared.announcer import logger
from .._shared.slot_channel import SlotChannel
from .._values.errors import ConnectError

_State = grpc.ChannelConnectivity


class AioSlotChannel(SlotChannel):
    """One `grpc.aio.Channel` in service of a pool."""

    channel: grpc.aio.Channel
    _closed = False

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes over `channel`, which nobody else uses."""
        super().__init__(channel)
        # gRPC's own calls that run on it: before 1.83 its `close` leaves streams running.
        self.running: set[Any] = set()

    async def connect(self) -> None:
        """Has the channel connect, and waits until it is ready; for how long is the machine's to say.

        Raises:
            ConnectError: It was closed meanwhile.
            Exception: gRPC's reason, as soon as it reports a transient failure.
        """
        while (state := self.state(connect=True)) is not _State.READY:
            if state is _State.SHUTDOWN:
                raise ConnectError("closed while it was being opened")
            if state is _State.TRANSIENT_FAILURE:
                await self._fail()
            else:
                await self._wait_for_change(state)

    async def _fail(self) -> None:
        """Raises gRPC's reason, which it tells nobody but calls; returns if the channel is ready by now.

        The call does not wait for ready, so while the channel is down it never leaves the process. Should the
        channel have connected just now, the server answers that it does not know the method, which is as good.
        """
        probe: Any = self.channel.unary_unary("/grpcpool.Connectivity/Probe")
        try:
            await probe(b"", wait_for_ready=False)
        except grpc.RpcError:
            # Whatever its code: a target or service config that is wrong has one of its own.
            if self.state() is not _State.READY:
                raise
        if self.state() is _State.TRANSIENT_FAILURE:
            # An interceptor of the channel's own answers in the server's place.
            raise ConnectError(f"the channel reports {_State.TRANSIENT_FAILURE.name}")

    def state(self, *, connect: bool = False) -> _State:
        """The state of the connection; `connect` has an idle one connect."""
        return self.channel.get_state(connect)

    def is_up(self, *, connect: bool) -> bool:
        """Looks at the connection; `connect` has one that is not up connect."""
        return self.state(connect=connect) is _State.READY

    async def _wait_for_change(self, state: _State) -> None:
        """Waits for another state than `state`; returns at once if the channel is closed."""
        try:
            await self.channel.wait_for_state_change(state)
        except (grpc.aio.UsageError, RuntimeError, AssertionError):
            # Closed meanwhile: the one or the other, by release of gRPC.
            if self.state() is not _State.SHUTDOWN:
                raise

    async def close(self) -> None:
        """Closes the channel, once; calls on it are cancelled. Never raises."""
        if self._closed:
            return
        self._closed = True
        for call in tuple(self.running):
            call.cancel()
        try:
            await self.channel.close()
        except Exception:  # noqa: BLE001 -- foreign code may raise anything
            logger.exception("a channel failed to close")
