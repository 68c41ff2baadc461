"""The thread that exists only while it is needed: started when it is, and never twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from grpcpool._sync.one_thread import OneThread
from support.signals import raising
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)

NAME = "test-one-thread"

Start = Callable[[threading.Thread], None]


class _InterruptedError(BaseException):
    """Raised by a signal handler."""


class Job:
    """Work that goes on until its end is asked for."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.guard = threading.RLock()
        self.thread = OneThread(NAME, self.guard)
        self.needed = True
        self.over = threading.Event()
        # How many threads do the work, and how many have begun it.
        self.working = self.begun = 0

    def start(self) -> None:
        """Starts the thread unless it runs."""
        self.thread.start(self._work, lambda: self.needed)

    def _work(self) -> None:
        self.begun += 1
        self.working += 1
        self.over.wait(LONG)
        with self.guard:
            self.working -= 1
            self.thread.ends()

    def end(self) -> None:
        """Ends the work, and waits for that."""
        self.over.set()
        self.thread.join(LONG)


@pytest.fixture
def job() -> Iterator[Job]:
    """Work for one thread; none is left afterwards."""
    made = Job()
    yield made
    made.end()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == NAME])


def test_it_is_started_once(job: Job) -> None:
    """However many threads need it at the same moment."""
    together(20, lambda _: job.start())
    assert job.thread.runs
    eventually(lambda: job.begun)
    assert (job.working, job.begun) == (1, 1)


def test_it_is_not_started_if_it_is_not_needed(job: Job) -> None:
    """As that of a pool at rest."""
    job.needed = False
    job.start()
    assert not job.thread.runs
    job.thread.join(LONG)
    assert not job.begun


def test_it_can_be_started_again(job: Job) -> None:
    """When it has ended."""
    for number in range(1, 4):
        job.over.clear()
        job.start()
        eventually(lambda number=number: job.begun == number)  # type: ignore[misc]
        job.end()
        assert not job.thread.runs


def test_it_knows_itself(job: Job) -> None:
    """It does not wait for itself."""
    seen: list[bool] = []

    def work() -> None:
        seen.append(job.thread.is_current())
        job.thread.join(LONG)
        job.thread.ends()

    job.thread.start(work, lambda: True)
    job.thread.join(LONG)
    assert seen == [True]
    assert not job.thread.is_current()


def _start_then_raise(thread: threading.Thread, start: Start) -> None:
    start(thread)
    raise _InterruptedError


def _start_too_late(thread: threading.Thread, start: Start) -> None:
    background(lambda: start(thread))
    raise _InterruptedError


def _do_not_start(_: threading.Thread, __: Start) -> None:
    raise _InterruptedError


@pytest.mark.parametrize("how", [_start_then_raise, _start_too_late, _do_not_start])
def test_an_interrupted_start(
    monkeypatch: pytest.MonkeyPatch, job: Job, how: Callable[[threading.Thread, Start], None]
) -> None:
    """If a signal handler raises meanwhile, one thread works in the end, whether that one has been started or not."""
    start = threading.Thread.start
    starts: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == NAME and not starts:
            starts.append(thread)
            how(thread, start)
        else:
            start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(_InterruptedError):
            job.start()
        job.start()
    eventually(lambda: job.begun)
    # One that came too late has ended.
    eventually(lambda: sum(thread.name == NAME for thread in threading.enumerate()) == 1)
    assert (job.working, job.begun) == (1, 1)
    assert job.thread.runs


def test_others_that_counted_on_it_get_it(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """What is asked of a thread that is being started is not lost if its start is interrupted."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        background(job.start).result(LONG)
        raise _InterruptedError

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(_InterruptedError):
        job.start()
    eventually(lambda: job.begun)


def test_it_cannot_be_started(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """That is raised, and it is started when it is needed next."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            job.start()
    assert not job.thread.runs
    job.start()
    eventually(lambda: job.begun)


def test_a_handler_that_raises_a_runtime_error(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """It does not look like a thread that cannot be started: the error is raised, and the thread works."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        interrupt()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with raising(RecursionError) as interrupt, pytest.raises(RecursionError):
        job.start()
    eventually(lambda: job.begun)
