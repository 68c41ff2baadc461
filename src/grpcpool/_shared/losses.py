"""Where losses are noticed: whether a connection is down is found out here, and nowhere else.

Four things lead to a check: a lease is about to use a connection that was not checked for a while, a call failed on it,
another was lost, or nothing has been checked for a while. A connection that is down is *lost*: it is checked ever less
often until it is back. As long as it is needed, each check makes it reconnect. A connection that failed a call and
looks well is checked a few times more, because gRPC may notice a loss a little later than its calls do.

This knows how to look and when, not what a loss means: that is for the machine to decide.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import grpc

from .._grpc.status import Status
from .._machine.doubts import NOTICED_WITHIN
from .._machine.machine import PoolMachine
from .._machine.slot import Slot
from .._values.errors import ConnectError
from .._values.slot_states import SlotState
from .slot_channel import SlotChannel

# How soon after a loss the first check comes, how far apart checks may be at most, and how long suspicion lasts.
_FIRST_PAUSE, _LONGEST_PAUSE, _SUSPECT_FOR = 0.001, 0.25, 0.05

# How often unused connections are checked: their server may have closed them. The live page, which is refreshed every
# half second, then shows an outage within a second. Waiting for a notification is not an option: on asyncio, if such a
# wait is pending when the process forks, gRPC crashes in a quarter of the children (1.85.1).
_CHECKS_EVERY = 0.4
# After a loss all are suspect, because a server that goes away takes many connections with it. So long for each that
# is checked then, which takes microseconds: half a percent of a CPU at most, however many are lost.
_PAUSE_FOR_EACH = 0.001

# A check takes microseconds. One that takes so long will not end.
_STUCK_AFTER = 0.9

# For so long no call is taken at its word after one was wrong: servers relay the errors of others in gRPC's words.
_DISTRUSTS_FOR = 60.0

# A server that goes away takes many connections with it, and should not be reconnected to by all of them at once.
_SPREAD = 0.05


class LossWatch:
    """Watches the connections of one pool."""

    def __init__(
        self,
        machine: PoolMachine,
        report: Callable[..., Any],
        back: Callable[[Slot], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Watches nothing yet.

        Args:
            machine: Whose slots to check.
            report: Reports an event to it, see `Driver.tell`.
            back: Called with a slot whose lost connection is up again.
            monotonic: Returns the moment.
        """
        self._back = back
        self._machine = machine
        self._slots = machine.fleet.slots
        self._report = report
        self._monotonic = monotonic
        # Slots that are lost, or may be, with the moment of the next check and the pause before the one after it.
        self._suspects: dict[Slot, tuple[float, float]] = {}
        # Slots that are being checked, since when.
        self._checking: dict[Slot, float] = {}
        # Slots that were lost by the word of a call alone, with the moment by which gRPC has noticed what that says.
        self._on_word: dict[Slot, float] = {}
        self._trusts_at = -math.inf
        # When all are checked next, when they were last, and until when all are suspect.
        self._checks_all_at = math.inf
        self._checked_all_at = self._all_suspect_until = -math.inf
        # When the next check is due: the earliest of the moments above, which change with it under the lock.
        self.next_check = math.inf
        # Reentrant: a finalizer that runs while it is held may release a lease, and that may report a loss.
        self._lock = threading.RLock()

    def begin(self) -> None:
        """There is a connection: checks from now on also those that are not used."""
        self._check_all(self._monotonic() + _CHECKS_EVERY)

    def _check_all(self, at: float) -> None:
        """Checks all at the moment `at`, if that is not planned for an earlier one."""
        with self._lock:
            self._checks_all_at = min(self._checks_all_at, at)
            self.next_check = min(self.next_check, self._checks_all_at)

    def clear(self) -> None:
        """Checks nothing more, if there is no connection any more."""
        with self._lock:
            # Under the lock: a connection that is added from here on is followed by `begin`.
            if not len(self._slots):
                self._suspects.clear()
                self._on_word.clear()
                self._checks_all_at = self.next_check = math.inf

    def lost(self, slot: Slot) -> None:
        """The slot's connection is down: checks it from now on, and the others for a while."""
        now = self._monotonic()
        wait = random.random() * _SPREAD * max(0, self._slots.lost - 1)  # noqa: S311 -- no secret
        # Until gRPC has noticed what a call said, it would look well.
        self._suspect(slot, now + wait + (NOTICED_WITHIN if slot in self._on_word else _FIRST_PAUSE))
        self._all_suspect_until = now + _SUSPECT_FOR
        self._check_all(max(now + _FIRST_PAUSE, self._checked_all_at + self._pause_of_all()))

    def _pause_of_all(self) -> float:
        """For so long all are left alone after a check while they are suspect."""
        return min(max(NOTICED_WITHIN, _PAUSE_FOR_EACH * len(self._slots)), _CHECKS_EVERY)

    def lost_again(self, slot: Slot) -> None:
        """The connection came back, and cannot be used: checks it again after the longest pause."""
        self._suspect(slot, self._monotonic() + _LONGEST_PAUSE, _LONGEST_PAUSE)

    def _suspect(self, slot: Slot, at: float, pause: float = _FIRST_PAUSE) -> None:
        """Checks the slot at the moment `at`, and `pause` seconds after that."""
        with self._lock:
            self._suspects[slot] = (at, pause)
            self.next_check = min(self.next_check, at)

    def _forget(self, slot: Slot) -> None:
        with self._lock:
            self._suspects.pop(slot, None)
            if slot.state is not SlotState.READY and slot.state is not SlotState.LOST:
                # It will not be checked any more.
                self._on_word.pop(slot, None)

    def is_up(self, slot: Slot) -> bool:
        """Whether the connection of a slot that is about to be leased is up, or nothing better is to be had."""
        channel: SlotChannel = slot.channel
        return slot.state is not SlotState.READY or channel.is_up(connect=True)

    def call_failed(self, slot: Slot, status: Status) -> bool:
        """A call failed on the slot. If its connection is down, reports it lost.

        Returns:
            Whether `next_check` may have changed, and the driver does not know yet.
        """
        if status.code is not grpc.StatusCode.UNAVAILABLE or slot.state is not SlotState.READY:
            return False
        channel: SlotChannel = slot.channel
        if channel.state() is not grpc.ChannelConnectivity.READY:
            self._report(self._machine.lost, slot, ConnectError(status.details))
            return False
        if status.tells_of_loss and self._may_trust(slot, self._monotonic()):
            self._lost_on_word(slot, status)
        elif slot not in self._suspects:
            self._suspect(slot, self._monotonic() + _FIRST_PAUSE)
        return True

    def _lost_on_word(self, slot: Slot, status: Status) -> None:
        self._on_word[slot] = self._monotonic() + NOTICED_WITHIN
        try:
            self._report(self._machine.lost, slot, ConnectError(status.details))
        finally:
            if slot.state is not SlotState.LOST:
                # Another thread has retired it meanwhile, or a signal handler has raised: nothing would end this.
                self._on_word.pop(slot, None)

    def _may_trust(self, slot: Slot, now: float) -> bool:
        """Whether it is taken out of service at the word of a call: one at a time is, until that is checked.

        So are those in doubt, unless words were wrong of late.
        """
        return now >= self._trusts_at and (slot.doubted or not self._on_word)

    def to_check(self, now: float) -> list[tuple[Slot, bool]]:
        """The slots to check now, each with whether to make it connect. The next checks are planned from here on.

        A slot whose last check has not ended is not among them: something holds the lock of its channel, maybe for ever
        (a signal handler that raised within gRPC). It is taken out of service.
        """
        with self._lock:
            found = self._due_suspects(now)
            if self._checks_all_at <= now:
                self._checked_all_at = now
                self._checks_all_at = now + (self._pause_of_all() if now < self._all_suspect_until else _CHECKS_EVERY)
                for slot in self._slots:
                    in_service = slot.state is SlotState.READY or slot.state is SlotState.LOST
                    if (in_service or slot.kept) and now >= self._on_word.get(slot, now):
                        # Without reconnecting, which should not happen to all at once.
                        found.setdefault(slot, False)
            self.next_check = min([self._checks_all_at, *(at for at, _ in self._suspects.values())])
            stuck = [slot for slot in found if now - self._checking.get(slot, now) >= _STUCK_AFTER]
            found = {slot: connect for slot, connect in found.items() if slot not in self._checking}
        for slot in stuck:
            if slot.state is SlotState.READY:
                self._report(self._machine.blocked, slot)
        return list(found.items())

    def _due_suspects(self, now: float) -> dict[Slot, bool]:
        found: dict[Slot, bool] = {}
        is_needed = self._machine.outage.which_are_needed(now)
        for slot, (at, pause) in tuple(self._suspects.items()):
            if slot.state not in (SlotState.LOST, SlotState.READY):
                self._forget(slot)
            elif at <= now:
                longer = min(2 * pause, _LONGEST_PAUSE)
                self._suspect(slot, now + longer, longer)
                found[slot] = slot.state is SlotState.READY or is_needed(slot)
                # One that is lost stays among them, because it may be needed later.
                if slot.state is SlotState.READY and longer > _SUSPECT_FOR:
                    self._forget(slot)
        return found

    def check(self, slot: Slot, *, connect: bool) -> None:
        """Checks whether the slot's connection is up, and reports a change. It may block, see `to_check`.

        A broken channel is not checked, and so never comes back into service.
        """
        now = self._monotonic()
        with self._lock:
            if slot in self._checking or slot.channel.broken:
                return
            self._checking[slot] = now
        channel: SlotChannel = slot.channel
        try:
            up = channel.is_up(connect=connect)
            slot.pauses = not up and channel.state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            channel.checked(now, up=up, failing=slot.pauses)
        finally:
            with self._lock:
                del self._checking[slot]
        if up and now < self._on_word.get(slot, now):
            # The check began before, or as a call said otherwise.
            return
        if self._on_word.pop(slot, None) is not None and up:
            self._trusts_at = now + _DISTRUSTS_FOR
        if up and slot.state is SlotState.LOST:
            self._forget(slot)
            self._back(slot)
        elif not up and (slot.state is SlotState.READY or slot.kept or slot.blocked):
            self._report(self._machine.lost, slot, None)
