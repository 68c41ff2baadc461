"""Factories that misbehave as told, and the fakes that they make."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from grpcpool.testing import FakeCall, FakeChannel, FakeFactory, error

__all__ = [
    "ConstantFactory",
    "FakeCall",
    "FakeChannel",
    "FakeFactory",
    "HangingFactory",
    "error",
    "failing_factory",
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
        assert self.go.wait(_BOUND), "nobody let the factory go on"
        return super().__call__()


class ConstantFactory:
    """Returns the same thing at each call, whatever that is."""

    def __init__(self, value: Any) -> None:
        """Returns `value`."""
        self._value = value

    def __call__(self) -> Any:
        """Returns it."""
        return self._value


def failing_factory() -> NoReturn:
    """A factory that always fails."""
    raise ConnectionRefusedError("this factory always fails")


def numbers(count: int) -> Iterator[bytes]:
    """Requests for a call that streams them: ``b"0"``, ``b"1"``, ..."""
    return (str(i).encode() for i in range(count))
