"""The lock of a pool: a queue with one token."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from grpcpool._shared.token_lock import token_lock
from support.waiting import LONG, background, eventually, is_inside

pytestmark = pytest.mark.timeout(60)


class _Raised(BaseException):
    """Raised by a signal handler."""


def test_one_holds_it() -> None:
    """It is held within the block, and only there."""
    lock = token_lock()
    assert not lock.locked()
    with lock:
        assert lock.locked()
    assert not lock.locked()


def test_an_error_within_the_block_passes() -> None:
    """What is raised within the block leaves it, and the lock is free, each time."""
    lock = token_lock()
    for _ in range(3):
        with pytest.raises(KeyError), lock:
            raise KeyError("key")
        assert not lock.locked()


def test_threads_exclude_each_other() -> None:
    """Of many threads one at a time is within the block, and each gets there."""
    lock, threads, rounds = token_lock(), 20, 300
    within, most, count = 0, 0, 0

    def work() -> None:
        nonlocal within, most, count
        for _ in range(rounds):
            with lock:
                within += 1
                most = max(most, within)
                count += 1
                # Lets another thread run, which must not get here.
                time.sleep(0)
                within -= 1

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (most, count, lock.locked()) == (1, threads * rounds, False)


def test_a_thread_waits_for_it() -> None:
    """A thread that comes while it is held goes on when it is free."""
    lock, thread = token_lock(), 0

    def take() -> None:
        nonlocal thread
        thread = threading.get_ident()
        with lock:
            pass

    with lock:
        waiting = background(take)
        eventually(lambda: is_inside("take", thread))
        assert not waiting.done()
    waiting.result(LONG)
    assert not lock.locked()


def test_a_signal_handler_ends_a_wait() -> None:
    """A signal handler that raises in a thread that waits for the lock ends the wait; the lock stays what it is."""
    lock = token_lock()
    main, entered, free = threading.get_ident(), threading.Event(), threading.Event()

    def handler(*_: object) -> None:
        raise _Raised

    def hold() -> None:
        with lock:
            entered.set()
            eventually(lambda: is_inside("take", main))
            signal.pthread_kill(main, signal.SIGUSR1)
            free.wait(LONG)

    def take() -> None:
        with lock:
            pytest.fail("it is held by another thread")

    before = signal.signal(signal.SIGUSR1, handler)
    holder = background(hold)
    try:
        entered.wait(LONG)
        with pytest.raises(_Raised):
            take()
        assert lock.locked()
    finally:
        signal.signal(signal.SIGUSR1, before)
        free.set()
    holder.result(LONG)
    assert not lock.locked()
