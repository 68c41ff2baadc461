"""Listeners, events and errors."""

from __future__ import annotations

from typing import assert_type

import grpcpool
from grpcpool import events


class Alarms(grpcpool.Listener):
    """Overrides some hooks."""

    def __init__(self) -> None:
        """Starts empty."""
        self.failures: list[BaseException] = []

    def open_failed(self, event: events.OpenFailed) -> None:
        """Records it."""
        assert_type(event.retry_in, float)
        assert_type(event.channel, int)
        self.failures.append(event.error)

    def closed(self, event: events.ChannelEvent) -> None:
        """May accept a more general type."""
        assert_type(event.pool, str)


def listened() -> grpcpool.ChannelPool:
    """A pool with listeners."""
    pool = grpcpool.insecure_channel("orders:50051", listeners=[Alarms()])
    pool.add_listener(Alarms())
    return pool


def acquire(pool: grpcpool.ChannelPool) -> grpcpool.Lease | None:
    """Handles each kind of error."""
    try:
        return pool.acquire(0)
    except grpcpool.PoolTimeoutError as error:
        waited: TimeoutError = error
        raise RuntimeError from waited
    except (grpcpool.PoolExhaustedError, grpcpool.PoolClosedError, grpcpool.PoolOpenError):
        return None
    except grpcpool.PoolError as error:
        assert_type(error.__cause__, BaseException | None)
        return None


def configured() -> grpcpool.PoolConfig:
    """Valid settings, and invalid ones, which must be rejected."""
    grpcpool.PoolConfig(picker="random")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    grpcpool.PoolConfig(mode="lax")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(grpcpool.PoolConfig(mode="loose").mode, grpcpool.Mode)
    return grpcpool.PoolConfig(mode=grpcpool.Mode.LOOSE, max_overflow=2, picker="fill", max_waiters=None)
