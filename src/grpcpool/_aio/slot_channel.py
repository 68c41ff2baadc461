"""A slot's `grpc.aio.Channel`, and how it is connected and closed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.client_modules import is_of_grpc
from .._grpc.lean_aio_multicallables import also_cancel, by_position, make_lean, start_of
from .._shared.announcer import logger
from .._shared.slot_channel import SlotChannel
from .._values.errors import ConnectError

if TYPE_CHECKING:
    import asyncio

    from .._shared.methods import Method

_State = grpc.ChannelConnectivity

_CLOSED_MEANWHILE = "closed while it was being opened"


class AioSlotChannel(SlotChannel):
    """One `grpc.aio.Channel` in service of a pool."""

    channel: grpc.aio.Channel
    _closed = False
    # Whether the slot is closed, while this may still be connecting; and whether the close of this ends that.
    given_up = False
    waits = False

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes over `channel`, which nothing else uses."""
        super().__init__(channel)
        # gRPC's own calls that run on it: before 1.83 its `close` leaves streams running.
        self.running: set[Any] = set()
        if self.is_plain:
            also_cancel(channel, self.running)

    def make(self, method: Method) -> Any:
        """As a function of `Arguments`, by position, which adds the calls that it starts to `running`."""
        multicallable = super().make(method)
        running = self.running
        if not self.is_plain:
            start = by_position(multicallable.__call__)
        else:
            start = start_of(multicallable)
            if make_lean(multicallable, running):
                return start

        def start_and_add(*arguments: Any) -> Any:
            call = start(*arguments)
            running.add(call)
            return call

        return start_and_add

    async def connect(self) -> None:
        """Connects the channel, and waits until it is ready. The machine limits the time.

        Raises:
            ConnectError: The channel was closed, or given up, meanwhile.
            Exception: gRPC's reason, as soon as it reports a transient failure.
        """
        while (state := self.state(connect=True)) is not _State.READY:
            if state is _State.SHUTDOWN:
                raise ConnectError(_CLOSED_MEANWHILE)
            if state is _State.TRANSIENT_FAILURE:
                await self._fail()
            else:
                await self._wait_for_change(state)
        self.has_connected = True

    async def _fail(self) -> None:
        """Raises gRPC's reason, which only calls get to see; returns if the channel is ready by now.

        The call does not wait for ready, so while the channel is down it never leaves the process. If the channel has
        just connected, the server answers that it does not know the method, which is as good.
        """
        probe: Any = self.channel.unary_unary("/grpcpool.Connectivity/Probe")
        try:
            await probe(self.probe_request, wait_for_ready=False)
        except grpc.RpcError:
            # With any code: a wrong target or service config has its own.
            if self.state() is not _State.READY:
                raise
        if self.state() is _State.TRANSIENT_FAILURE:
            # An interceptor of the channel's own answers in the server's place.
            raise ConnectError(f"the channel reports {_State.TRANSIENT_FAILURE.name}")

    def state(self, *, connect: bool = False) -> _State:
        """The state of the connection; with `connect`, an idle one connects."""
        return self.channel.get_state(connect)

    def is_up(self, *, connect: bool) -> bool:
        """Checks the connection; with `connect`, one that is not up connects."""
        return self.state(connect=connect) is _State.READY

    async def _wait_for_change(self, state: _State) -> None:
        """Waits for another state than `state`; returns at once if the channel is closed."""
        self.waits = is_of_grpc(self.channel)
        try:
            await self.channel.wait_for_state_change(state)
        except (grpc.aio.UsageError, RuntimeError, AssertionError):
            # Closed meanwhile: which error it is depends on the release of gRPC.
            if self.state() is not _State.SHUTDOWN:
                raise
        finally:
            self.waits = False
        if self.given_up:
            raise ConnectError(_CLOSED_MEANWHILE)

    def give_up(self) -> bool:
        """The slot is closed; returns whether its opening has to be cancelled: otherwise it ends with the channel.

        What waits for a change of a channel of gRPC's, and is cancelled, is kept by gRPC for ever, with its loop.
        """
        self.given_up = True
        return not self.waits

    async def close(self, opening: asyncio.Task[None] | None = None) -> None:
        """Closes the channel, once; calls on it are cancelled, and `opening` if the close fails. Never raises."""
        if self._closed:
            return
        self._closed = True
        for call in tuple(self.running):
            with contextlib.suppress(Exception):
                # What an interceptor returned may raise anything; gRPC's own, too, in its place.
                call.cancel()
        try:
            await self.channel.close()
        except Exception:  # noqa: BLE001 -- foreign code may raise anything
            logger.exception("a channel failed to close")
            if opening is not None:
                opening.cancel()
