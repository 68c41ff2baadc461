"""The threads that start waiting calls: in order while nothing blocks, and without waiting for what does."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from grpcpool._shared import thread_start
from grpcpool._sync.work_queue import WorkQueue
from support.signals import raising
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)

NAME = "test-starter"


def _alive() -> int:
    """How many threads there are."""
    return sum(thread.name == NAME for thread in threading.enumerate())


class Supervisor:
    """Calls `take_over` of threads on a thread of its own, as a pool's worker does: as if the time had come at once."""

    def __init__(self) -> None:
        """Supervises nothing yet."""
        self._due: queue.SimpleQueue[tuple[WorkQueue, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="test-supervisor")
        self._thread.start()

    def make(self) -> WorkQueue:
        """Threads for starts."""

        def look_at(moment: float) -> None:
            self._due.put((made, moment))

        made = WorkQueue(NAME, look_at, time.monotonic, threading.RLock())
        return made

    def _run(self) -> None:
        while (due := self._due.get()) is not None:
            starter, moment = due
            if moment < time.monotonic() + LONG:
                starter.take_over(moment)

    def close(self) -> None:
        """Supervises no more."""
        self._due.put(None)
        self._thread.join(LONG)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Makes threads that are supervised."""
    made = Supervisor()
    yield made
    made.close()


@pytest.fixture
def starter(supervisor: Supervisor) -> Iterator[WorkQueue]:
    """Threads for starts; none is left afterwards."""
    made = supervisor.make()
    yield made
    made.join(LONG)
    assert _alive() == 0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """No start counts as one that blocks, however busy the machine is."""
    monkeypatch.setattr(starter, "_blocks_after", 3600.0)


class Gate:
    """Work that says that it has begun, and then blocks until it is opened."""

    def __init__(self) -> None:
        """Closed."""
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.passed = False

    def __call__(self) -> None:
        """Blocks."""
        self.begun.set()
        self.passed = self.opened.wait(LONG)


# --- in order -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_work_is_done_in_order(starter: WorkQueue) -> None:
    """While nothing blocks, one thread does all work, in the order in which it was queued."""
    done: list[int] = []
    threads: set[int] = set()

    def work(i: int) -> None:
        done.append(i)
        threads.add(threading.get_ident())

    gate = Gate()
    starter.do(gate)
    for i in range(500):
        starter.do(partial(work, i))
    assert gate.begun.wait(LONG)
    assert not done
    gate.opened.set()
    eventually(lambda: len(threads) == 1 and len(done) == 500)
    assert done == list(range(500))


@pytest.mark.usefixtures("patient")
def test_much_work_needs_one_thread(starter: WorkQueue) -> None:
    """While nothing blocks, there is the thread that works, and no other."""
    most: list[int] = []
    for _ in range(500):
        starter.do(lambda: most.append(_alive()))
    eventually(lambda: len(most) == 500)
    assert max(most) == 1


def test_one_piece_of_work_needs_one_thread(starter: WorkQueue) -> None:
    """Nothing stands by for work that nothing waits behind."""
    gate = Gate()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    assert _alive() == 1
    gate.opened.set()


@pytest.mark.parametrize("raised", [ArithmeticError, SystemExit, KeyboardInterrupt])
def test_work_that_raises(starter: WorkQueue, raised: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever work raises is logged, and the next is done."""
    done = threading.Event()

    def fail() -> None:
        raise raised("as the test wants")

    starter.do(fail)
    starter.do(done.set)
    assert done.wait(LONG)
    eventually(lambda: "as the test wants" in caplog.text)


# --- work that blocks -----------------------------------------------------------------------------------------------


def test_blocking_work_does_not_hold_up_the_next(starter: WorkQueue) -> None:
    """Work may wait for what is queued behind it."""
    gate = Gate()
    starter.do(gate)
    starter.do(gate.opened.set)
    assert gate.begun.wait(LONG)
    eventually(lambda: gate.passed)


def test_work_queued_while_another_blocks(starter: WorkQueue) -> None:
    """What is queued when a start has already blocked for long is not held up either."""
    gate, done = Gate(), threading.Event()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    starter.do(done.set)
    assert done.wait(LONG)
    assert not gate.passed
    gate.opened.set()


def test_threads_are_bounded_by_what_blocks(starter: WorkQueue) -> None:
    """However many starts block at once, others are done; there are as many threads as starts that block, and one."""
    gates = [Gate() for _ in range(10)]
    for blocking, gate in enumerate(gates, 1):
        starter.do(gate)
        assert gate.begun.wait(LONG)
        assert blocking <= _alive() <= blocking + 1
    done = threading.Event()
    starter.do(done.set)
    assert done.wait(LONG)
    assert not any(gate.passed for gate in gates)
    for gate in reversed(gates):
        gate.opened.set()
        eventually(lambda gate=gate: gate.passed)  # type: ignore[misc]


def test_each_piece_of_work_is_done_once(starter: WorkQueue) -> None:
    """Also while threads take over from each other, nothing is lost and nothing is done twice."""
    done: list[int] = []
    gates = [Gate() for _ in range(5)]
    for i in range(500):
        starter.do(partial(done.append, i))
        if i % 100 == 50:
            starter.do(gates[i // 100])
    eventually(lambda: len(done) == 500)
    for gate in gates:
        gate.opened.set()
    starter.join(LONG)
    assert sorted(done) == list(range(500))
    assert all(gate.passed for gate in gates)


# --- their end ------------------------------------------------------------------------------------------------------


def test_threads_end_when_idle(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    """When there was nothing to do for a while, no thread is left; new work starts one."""
    starter = supervisor.make()
    monkeypatch.setattr(starter, "_lingers_for", 0.001)
    for _ in range(3):
        gate, done = Gate(), threading.Event()
        starter.do(gate)
        starter.do(done.set)
        assert done.wait(LONG)
        gate.opened.set()
        eventually(lambda: _alive() == 0)
        assert not any(thread.is_alive() for thread in starter._threads)


def test_a_busy_pool_keeps_its_thread(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """Work that comes before the thread has been idle for long is done by the same thread."""
    monkeypatch.setattr(starter, "_lingers_for", 3600.0)
    threads: list[int] = []
    for number in range(1, 11):
        starter.do(lambda: threads.append(threading.get_ident()))
        eventually(lambda number=number: len(threads) == number and starter._busy_since is None)  # type: ignore[misc]
    assert len(set(threads)) == 1


def test_a_start_is_looked_at_when_it_has_taken_too_long() -> None:
    """Before that moment nothing takes over, nor if no work waits."""
    looks: list[float] = []
    starter = WorkQueue(NAME, looks.append, lambda: 100.0, threading.RLock())
    gate, done = Gate(), threading.Event()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    starter.take_over(200.0)
    assert not looks
    starter.do(done.set)
    assert looks == [starter.alarm]
    starter.take_over(starter.alarm - 0.001)
    assert _alive() == 1
    starter.take_over(starter.alarm)
    assert done.wait(LONG)
    gate.opened.set()
    starter.join(LONG)
    starter.take_over(200.0)
    assert starter.alarm == math.inf


def test_join_waits_for_what_is_queued(supervisor: Supervisor) -> None:
    """`join` returns when all work is done and the threads have ended, also if some had blocked."""
    starter, gate = supervisor.make(), Gate()
    done: list[int] = []
    starter.do(gate)
    for i in range(100):
        starter.do(partial(done.append, i))
    starter.do(gate.opened.set)
    starter.join(LONG)
    assert gate.passed
    assert sorted(done) == list(range(100))
    assert _alive() == 0


def test_join_without_threads(supervisor: Supervisor) -> None:
    """`join` returns at once if nothing was ever done; work that comes later is done."""
    starter, done = supervisor.make(), threading.Event()
    starter.join(LONG)
    assert _alive() == 0
    starter.do(done.set)
    assert done.wait(LONG)
    eventually(lambda: _alive() == 0)


def test_join_is_bounded(starter: WorkQueue) -> None:
    """`join` returns after its timeout although work still blocks."""
    gate = Gate()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    starter.join(0.0)
    assert not gate.passed
    gate.opened.set()


def test_join_within_work(starter: WorkQueue) -> None:
    """A thread does not wait for itself; it knows that it is one of these threads."""
    seen: list[bool] = []
    done = threading.Event()

    def work() -> None:
        seen.append(starter.is_current())
        starter.join(LONG)
        done.set()

    starter.do(work)
    assert done.wait(LONG)
    assert seen == [True]
    assert not starter.is_current()


# --- without threads ------------------------------------------------------------------------------------------------


def _at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)


def _at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_start, "sys", SimpleNamespace(is_finalizing=lambda: True))


def test_a_handler_that_raises_a_runtime_error(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """It does not look like a thread that cannot be started: the error is raised, and a thread does the work."""
    start = threading.Thread.start
    done: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        interrupt()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with raising(RecursionError) as interrupt, pytest.raises(RecursionError):
        starter.do(lambda: done.append(threading.get_ident()))
    eventually(lambda: done)
    assert done != [threading.get_ident()]


@pytest.mark.parametrize("happens", [_at_the_limit, _at_the_end])
def test_without_a_thread_it_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[pytest.MonkeyPatch], None],
    caplog: pytest.LogCaptureFixture,
    supervisor: Supervisor,
) -> None:
    """If no thread can be started, `do` does the work before it returns, in order, and logs what it raises."""
    starter = supervisor.make()
    done: list[int] = []

    def work() -> None:
        done.append(1)
        starter.do(lambda: done.append(2))
        done.append(threading.get_ident())

    def fail() -> None:
        raise ArithmeticError("as the test wants")

    with monkeypatch.context() as patched:
        happens(patched)
        starter.do(work)
        assert done == [1, 2, threading.get_ident()]
        starter.do(fail)
    assert "as the test wants" in caplog.text
    assert not starter._threads
    # Later threads can be started again.
    starter.do(lambda: done.append(3))
    starter.join(LONG)
    assert done[3:] == [3]


def test_without_a_thread_several_may_do_the_work(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    """One that is done with it may find that another has taken the last piece."""
    starter = supervisor.make()

    class TakenByOthers(deque[Callable[[], object]]):
        def __bool__(self) -> bool:
            return True

    done: list[int] = []
    starter._work = TakenByOthers()
    with monkeypatch.context() as patched:
        _at_the_limit(patched)
        starter.do(lambda: done.append(1))
    assert done == [1]


def test_without_another_thread_the_first_goes_on(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """If no second thread can be started, work waits for the first, and is done in order."""
    gate = Gate()
    done: list[int] = []
    starter.do(gate)
    assert gate.begun.wait(LONG)
    with monkeypatch.context() as patched:
        _at_the_limit(patched)
        for i in range(10):
            starter.do(partial(done.append, i))
        assert not done
        gate.opened.set()
        eventually(lambda: len(done) == 10)
    assert done == list(range(10))


def test_where_threads_are_forbidden_in_other_words(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """Whatever the words, no thread can be started: the work is done at once."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("threads are not allowed here")

    done: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        starter.do(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]


def test_join_waits_as_long_as_work_goes_on(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    """Its timeout is for the piece of work that is being done, not for all that is queued."""
    starter, gates = supervisor.make(), [Gate() for _ in range(3)]
    monkeypatch.setattr(starter, "_blocks_after", math.inf)
    for gate in gates:
        starter.do(gate)
    joining = background(lambda: starter.join(LONG))
    for gate in gates:
        assert gate.begun.wait(LONG)
        assert not joining.done()
        gate.opened.set()
    joining.result(LONG)
    assert all(gate.passed for gate in gates)


def test_a_thread_that_could_not_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch, starter: WorkQueue) -> None:
    """If no thread can be started to take over, another is tried later: work does not wait until the start is done."""
    gate, done = Gate(), threading.Event()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    tried, works_again = threading.Event(), threading.Event()

    def fail(_: threading.Thread) -> None:
        tried.set()
        # Once only: with each look the supervisor's time advances.
        works_again.wait(LONG)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        starter.do(done.set)
        assert tried.wait(LONG)
    works_again.set()
    assert done.wait(LONG)
    assert not gate.passed
    gate.opened.set()


def test_no_look_is_due_when_no_work_waits() -> None:
    """When the last work has been taken nothing is due, also on a clock that stands still: no thread waits for it."""
    starter, gate = WorkQueue(NAME, lambda _: None, lambda: 0.0, threading.RLock()), Gate()
    starter.do(gate)
    assert gate.begun.wait(LONG)
    starter.do(lambda: None)
    assert starter.alarm < math.inf
    gate.opened.set()
    starter.join(LONG)
    assert starter.alarm == math.inf
