"""`grpcpool bench --rate`: the schedule, what is recorded, and short runs against a real server."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import statistics
import time

import pytest

from cli.support import CHECK, Commands, figures_of
from grpcpool.cli._bench.aio_loops import call_when_due
from grpcpool.cli._bench.levels import Level, parse_concurrency, parse_rates
from grpcpool.cli._bench.open_recorder import OpenLoopRecorder
from grpcpool.cli._bench.schedule import MAX_CALLS, draw_schedule
from grpcpool.cli._errors import UsageError

_QUICK = ("--duration=1", "--warmup=0.1")


# --- levels and schedules ---------------------------------------------------------------------------------------------


def test_rates() -> None:
    """A rate is a number of calls per second, or a percentage that the capacity turns into one."""
    assert parse_rates("50, 0.5") == [Level(rate=50.0), Level(rate=0.5)]
    half, most = parse_rates("50%,120%")
    assert (half, half.rate, str(half.of_capacity(2000.0))) == (Level(share=50.0), None, "50% (1,000 calls/s)")
    assert most.of_capacity(200.0) == Level(rate=240.0, share=120.0)
    assert Level(rate=7.0).of_capacity(1.0) == Level(rate=7.0)
    assert [str(level) for level in (Level(rate=1234.5), Level(rate=0.5))] == ["1,234 calls/s", "0.5 calls/s"]


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "1e3", "50%%", "%", "5,,5", "2000%", "1000000"])
def test_rates_that_are_not_valid(text: str) -> None:
    """Anything else, and more than a process could make, is refused with its text."""
    with pytest.raises(UsageError, match="--rate: "):
        parse_rates(text)


def test_concurrency() -> None:
    """Numbers of callers have their unit in texts."""
    assert [str(level) for level in parse_concurrency("1, 50")] == ["1 caller", "50 callers"]


def test_a_schedule_is_drawn_from_its_seed() -> None:
    """Equal seeds give equal schedules, other seeds other ones; calls are due in order, before the end."""
    schedule = draw_schedule(100.0, 20.0, 1)
    assert schedule == draw_schedule(100.0, 20.0, 1)
    assert schedule != draw_schedule(100.0, 20.0, 2)
    assert list(schedule) == sorted(schedule)
    assert schedule[0] > 0
    assert schedule[-1] < 20.0


def test_a_schedule_is_random_with_the_given_rate() -> None:
    """The pauses have the mean of the rate, and vary as much as exponential ones: arrivals are a Poisson process."""
    schedule = draw_schedule(1000.0, 20.0, 1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(schedule)]
    assert len(schedule) == pytest.approx(20_000, rel=0.03)
    assert statistics.mean(pauses) == pytest.approx(0.001, rel=0.03)
    assert statistics.stdev(pauses) == pytest.approx(0.001, rel=0.05)


def test_a_schedule_that_does_not_fit_into_memory() -> None:
    """It is refused before anything is drawn."""
    with pytest.raises(UsageError, match=r"100,000 calls/s for 86400 s are more than 10,000,000 calls"):
        draw_schedule(100_000.0, 86_400.0, 1)
    assert MAX_CALLS < 100_000 * 86_400


# --- recording --------------------------------------------------------------------------------------------------------


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_every_call_that_was_due_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was due is completed, failed, dropped or unfinished; those of the warm-up are none of these."""
    clock = _Clock(monkeypatch)
    recorder = OpenLoopRecorder(1.0, 2.0)
    began = recorder.begin()
    for due in (0.5, 1.0, 1.5, 2.0, 2.5):
        clock.now = began + due + 0.01
        recorder.start(began + due)
    recorder.drop(began + 2.75)
    recorder.drop(began + 0.75)
    clock.now = began + 2.9
    recorder.record(began + 0.5, None)
    recorder.record(began + 1.0, None)
    recorder.record(began + 1.5, "UNAVAILABLE")
    # Ends after the measurement, and counts: leaving out slow calls would flatter the percentiles.
    clock.now = began + 4.5
    recorder.record(began + 2.0, None)
    recorder.process(last=True)
    counts = (recorder.offered, recorder.completed, recorder.failed, recorder.dropped, recorder.unfinished)
    assert counts == (5, 2, 1, 1, 1)
    # The one of the warm-up, too: what is due late in the measured time ends after it.
    assert recorder.completed_in_time == 2
    assert recorder.offered_rate == 2.5
    assert recorder.longest_lag == pytest.approx(0.01)
    assert recorder.percentile(100) == pytest.approx(2.5)
    assert [(part.at, part.offered, part.dropped, part.completed, part.failed) for part in recorder.slices] == [
        *((0.0, 2, 0, 0, 0), (1.0, 3, 1, 1, 1)),
        *((2.0, 0, 0, 0, 0), (3.0, 0, 0, 1, 0)),
    ]


def test_a_standstill_shows_in_every_call_that_was_due() -> None:
    """Latency begins when a call was due: a client that stood still for 300 ms does not report quick calls."""
    recorder = OpenLoopRecorder(0.0, 10.0)

    async def call() -> None:
        if not recorder.longest_lag:
            # The first call stops the whole process.
            time.sleep(0.3)  # noqa: ASYNC251 -- what is tested
            recorder.longest_lag = 0.001

    asyncio.run(call_when_due(call, recorder, [0.0, 0.1, 0.2], 10, 10.0))
    recorder.process(last=True)
    assert recorder.completed == 3
    low, middle, high = (recorder.percentile(percentile) or 0.0 for percentile in (0, 50, 100))
    assert low >= 0.1
    assert middle >= 0.2
    assert high >= 0.3


def test_calls_are_dropped_beyond_the_bound_in_flight() -> None:
    """While as many calls as allowed are in flight, those that are due are dropped."""
    recorder = OpenLoopRecorder(0.0, 60.0)

    async def run() -> None:
        release = asyncio.Event()

        async def call() -> None:
            await release.wait()

        running = asyncio.create_task(call_when_due(call, recorder, [0.0] * 5, 2, 60.0))
        while len(recorder._due) < 5:  # noqa: ASYNC110 -- the recorder has no event
            await asyncio.sleep(0)
        release.set()
        await running

    asyncio.run(run())
    recorder.process(last=True)
    assert (recorder.offered, recorder.completed, recorder.dropped, recorder.unfinished) == (5, 2, 3, 0)


def test_calls_that_the_client_does_not_get_to_are_dropped() -> None:
    """Calls that are not started within the longest lag are dropped."""
    recorder = OpenLoopRecorder(0.0, 60.0)

    async def call() -> None:
        raise AssertionError

    asyncio.run(call_when_due(call, recorder, [-2.0, -1.5], 10, 1.0))
    assert [lag for _, lag in recorder._due] == [None, None]


# --- against a server -------------------------------------------------------------------------------------------------


def test_a_rate_is_offered(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """Each way is offered the same calls; the JSON and the report show what became of them."""
    path = tmp_path / "report.html"
    options = ("--rate=50", "--compare=bare,pool", "--report", path, *_QUICK, "--json")
    result = command("bench", f"127.0.0.1:{port}", CHECK, *options, "-H", "Token: secret-1", "-Hother: secret-2")
    assert result.code == 0
    assert result.json["metadata"] == ["token", "other"]
    bare, pool = result.json["results"]
    expected = sum(due >= 0.1 for due in draw_schedule(50.0, 1.1, 1))
    for each in (bare, pool):
        assert (each["rate"], each["concurrency"], each["percent_of_capacity"]) == (50.0, None, None)
        assert each["offered"] == expected
        assert each["completed"] + each["failed"] + each["dropped"] + each["unfinished"] == expected
        assert sum(part["offered"] for part in each["over_time"]) == expected
        assert sum(part["completed"] for part in each["over_time"]) == each["completed"]
        assert each["completed"]
    page = path.read_text(encoding="utf-8")
    assert figures_of(page)["calls-1"].names[0] == "bare completed"
    assert "An open loop" in page
    assert "secret" not in page + result.out + result.err


def test_a_share_of_the_capacity_is_offered(command: Commands, port: int) -> None:
    """The capacity of one channel is measured first, and printed; the rates are shares of it."""
    options = ("--rate=2%,4%", "--compare=pool", "--duration=0.3", "--warmup=0", "--json")
    result = command("bench", f"127.0.0.1:{port}", CHECK, *options)
    capacity = result.json["capacity"]
    assert (capacity["way"], capacity["concurrency"], capacity["completed"] > 0) == ("bare", 90, True)
    levels = [(each["percent_of_capacity"], each["rate"]) for each in result.json["results"]]
    expected = [(share, pytest.approx(capacity["calls_per_second"] * share / 100, rel=0.01)) for share in (2.0, 4.0)]
    assert levels == expected
