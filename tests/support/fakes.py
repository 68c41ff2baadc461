"""Factories that misbehave, and the fakes that they make."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import grpc

from grpcpool.testing import FakeCall, FakeChannel, FakeFactory, aio, error

from .servers import COUNT, FAIL, SLOW

__all__ = [
    "AIO_HANDLERS",
    "HANDLERS",
    "ConstantFactory",
    "FakeCall",
    "FakeChannel",
    "FakeFactory",
    "HangingFactory",
    "aio",
    "error",
    "failing_factory",
    "holding",
    "numbers",
]

_BOUND = 30.0


class HangingFactory(FakeFactory):
    """Hangs until `go` is set."""

    def __init__(self) -> None:
        """Hangs from now on."""
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> FakeChannel:
        """Makes one when `go` is set."""
        self.entered.release()
        assert self.go.wait(_BOUND), "the test never set `go`"
        return super().__call__()


class ConstantFactory:
    """Returns the same object at each call."""

    def __init__(self, value: Any) -> None:
        """Returns `value`."""
        self._value = value

    def __call__(self) -> Any:
        """Returns it."""
        return self._value


def holding() -> FakeChannel:
    """A channel whose calls run until the test ends them."""
    return FakeChannel(holds_calls=True)


def failing_factory() -> NoReturn:
    """A factory that always fails."""
    raise ConnectionRefusedError("this factory always fails")


def numbers(count: int) -> Iterator[bytes]:
    """Requests for a call that streams them: ``b"0"``, ``b"1"``, ..."""
    return (str(i).encode() for i in range(count))


def _fail(request: bytes) -> bytes:
    raise error(grpc.StatusCode[request.decode()], f"failed as asked: {request.decode()}")


def _count(request: bytes) -> Iterator[bytes]:
    return numbers(int(request.split(b",")[0]))


async def _aio_fail(request: bytes) -> bytes:
    raise aio.error(grpc.StatusCode[request.decode()], f"failed as asked: {request.decode()}")


async def _aio_slow(request: bytes) -> bytes:
    await _turns(int(request))
    return request


async def _aio_count(request: bytes) -> AsyncIterator[bytes]:
    number, _, pause = request.decode().partition(",")
    for i in range(int(number)):
        await _turns(int(pause or 0))
        yield str(i).encode()


async def _turns(milliseconds: int) -> None:
    # A millisecond is a turn of the loop; a pause longer than any test needs lasts for ever.
    if milliseconds >= 1000:
        await asyncio.Event().wait()
    for _ in range(milliseconds):
        await asyncio.sleep(0)


HANDLERS: dict[str, Callable[[bytes], object]] = {FAIL: _fail, COUNT: _count}
"""With these a fake channel answers as one to the tests' server does."""

AIO_HANDLERS: dict[str, Callable[[bytes], object]] = {FAIL: _aio_fail, COUNT: _aio_count, SLOW: _aio_slow}
"""With these asyncio's fake does, too."""
