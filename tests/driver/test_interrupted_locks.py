"""Signal handlers that raise as a lock of gRPC's is taken or released, or within work that finalizers have left."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from grpcpool._grpc.interrupted_calls import unlock_left_locked
from grpcpool._shared.deferred_work import do_deferred_work
from support.signals import TimeLimitError
from support.waiting import LONG, background

pytestmark = pytest.mark.timeout(120)


def _condition_of(module: str) -> Any:
    """A condition, and a function of that module that enters and leaves it."""
    namespace: dict[str, Any] = {"__name__": module}
    exec("def use(condition):\n    with condition:\n        pass", namespace)  # noqa: S102 -- the text is here
    return threading.Condition(), namespace["use"]


def _is_free(condition: threading.Condition) -> bool:
    """Whether another thread gets its lock."""

    def takes() -> bool:
        taken = condition.acquire(blocking=False)
        if taken:
            condition.release()
        return taken

    return bool(background(takes).result(LONG))


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
@pytest.mark.parametrize("event", ["call", "c_call", "c_return"])
def test_a_lock_within_which_a_handler_raises(method: str, event: str) -> None:
    """It is released, wherever in taking or releasing it that was. The locks of others are left alone."""

    def interrupt(frame: FrameType, what: str, _: object) -> None:
        if what == event and frame.f_code is getattr(threading.Condition, method).__code__:
            sys.setprofile(None)
            raise TimeLimitError

    for module in ("grpc._channel", "grpc._cython.cygrpc", "grpcpool._grpc.logged_callbacks", "users.module"):
        condition, use = _condition_of(module)
        sys.setprofile(interrupt)
        with pytest.raises(TimeLimitError) as raised:
            use(condition)
        was_free = _is_free(condition)
        unlock_left_locked(raised.value)
        assert _is_free(condition) == (was_free if module.startswith("users") else True)


def test_a_lock_within_which_work_that_finalizers_left_is_interrupted() -> None:
    """It is released, although the error is raised on without what its frames held."""
    condition, use = _condition_of("grpc._cython.cygrpc")

    def interrupt(frame: FrameType, what: str, _: object) -> None:
        if what == "c_return" and frame.f_code is threading.Condition.__enter__.__code__:
            sys.setprofile(None)
            raise TimeLimitError

    sys.setprofile(interrupt)
    with pytest.raises(TimeLimitError) as raised:
        do_deferred_work(deque([partial(use, condition)]), "orders")
    # As for every error that a signal handler may have raised.
    unlock_left_locked(raised.value)
    assert _is_free(condition)


def test_work_that_finalizers_left_is_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    """It is done, and the thread that the handler interrupted gets the error. What cannot be done is logged."""
    tries: list[str] = []

    def interrupted_once() -> None:
        tries.append("once")
        if tries.count("once") == 1:
            raise TimeLimitError

    def impossible() -> None:
        tries.append("impossible")
        raise ArithmeticError

    left: deque[Callable[[], object]] = deque([impossible, interrupted_once, interrupted_once])
    with pytest.raises(TimeLimitError):
        do_deferred_work(left, "orders")
    do_deferred_work(left, "orders")
    assert tries == ["impossible"] * 2 + ["once"] * 3
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ArithmeticError]
    tries.clear()
    # Handlers do not run on other threads.
    left.append(interrupted_once)
    background(lambda: do_deferred_work(left, "orders")).result(LONG)
    assert tries == ["once"] * 2
