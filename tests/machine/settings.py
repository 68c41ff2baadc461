"""What a model of the machine is made with."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import random

from grpcpool import Mode, PoolConfig
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from grpcpool._values.config import PickerName


def dice(seed: int) -> random.Random:
    """A random source that repeats for the same seed."""
    return random.Random(seed)  # noqa: S311 -- tests have no secrets


EPOCH = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """The classes of one copy of the machine: the real one, or a mutant.

    States, reasons and the like compare equal as strings, so values from any copy work; classes do not.
    """

    machine: type[PoolMachine]
    waiter: type[Waiter]
    open_waiter: type[OpenWaiter]
    config: type[PoolConfig]
    mode: type[Mode]


REAL = Code(machine=PoolMachine, waiter=Waiter, open_waiter=OpenWaiter, config=PoolConfig, mode=Mode)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of a configuration that the machine uses."""

    min_size: int = 1
    max_size: int = 3
    target_streams: int = 2
    max_streams: int = 4
    loose: bool = False
    max_overflow: int = 1
    max_waiters: int | None = None
    idle_timeout: float | None = 4.0
    max_age: float | None = None
    connect_timeout: float = 2.0
    drain_timeout: float = 3.0
    picker: PickerName = "least_loaded"
    avoid_after_failure: float | None = 3.0
    unresponsive_after: float | None = 4.0
    # Of how many addresses look-ups may find some; 0 if where connections lead is not known.
    addresses: int = 0
    either_family: bool = False
    # Whether gRPC watches health: then a connection to a server that is not healthy is lost.
    health: bool = False
    endpoints: int = 1

    def config(self, code: Code) -> PoolConfig:
        """The same settings as a `PoolConfig` of that copy."""
        return code.config(
            min_size=self.min_size,
            max_size=self.max_size,
            target_streams=self.target_streams,
            max_streams=self.max_streams,
            mode=code.mode.LOOSE if self.loose else code.mode.STRICT,
            max_overflow=self.max_overflow if self.loose else 0,
            max_waiters=self.max_waiters,
            idle_timeout=self.idle_timeout,
            max_age=self.max_age,
            connect_timeout=self.connect_timeout,
            drain_timeout=self.drain_timeout,
            picker=self.picker,
            avoid_after_failure=self.avoid_after_failure,
            unresponsive_after=self.unresponsive_after,
            health_service="" if self.health else None,
        )


class Sick(enum.Enum):
    """Stands for the status of a failed call."""

    SICK = 1


@dataclasses.dataclass(eq=False, slots=True)
class Held:
    """A grant that has not been released."""

    slot: Slot
    streams: int | None


# So many look-ups may hang at once.
MOST_LOOKS = 40
