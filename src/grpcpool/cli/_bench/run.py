"""Runs ``grpcpool bench``."""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
from collections.abc import Iterable, Sequence

import grpc
from rich.console import Console

from ..._demo.call_counter import failure_name
from .._errors import CommandError, ExitCode, UsageError
from .._output import print_json
from .._target import parse_target
from .channels import Server
from .levels import Level
from .load import call_once
from .measure import measure, measure_capacity
from .metadata import Metadata, parse_metadata
from .methods import Method, describe, describe_by_reflection, explain, pool_of_files, split_name
from .options import BenchOptions
from .report import write_report
from .result import MAX_IN_FLIGHT, BenchRun, Plan, Result
from .schedule import check_size
from .terminal import ProgressReporter, print_table, progress_of


class _Measurements:
    """The results so far."""

    def __init__(self) -> None:
        self.capacity: Result | None = None
        self.results: list[Result] = []
        self.interrupted = True


def run_bench(server: Server, plan: Plan, options: BenchOptions, *, with_json: bool, console: Console) -> ExitCode:
    """Measures each way at each level of load, and prints the results, also after an interruption.

    Args:
        server: The server to call.
        plan: What to call, and for how long.
        options: What to compare, and where to write the report.
        with_json: Whether to print JSON.
        console: Where to print.

    Returns:
        The exit code.

    Raises:
        CommandError: No call was completed (the results have been printed), or the report cannot be written.
    """
    began = dt.datetime.now(dt.UTC)
    _check_sizes(options.levels, plan)
    done = _Measurements()
    failed: CommandError | None = None
    try:
        _measure_all(server, plan, options, done)
    except CommandError as error:
        # What has been measured is not lost.
        if not done.results:
            raise
        failed = error
    run = BenchRun(server.target, plan, options.command, done.results, done.interrupted, began, done.capacity)
    if with_json:
        print_json(console, run.as_json())
    else:
        print_table(console, run)
    if options.report is not None:
        write_report(options.report, run)
    if failed is not None:
        raise failed
    if done.interrupted:
        return ExitCode.INTERRUPTED
    if not any(result.recorder is not None and result.recorder.completed for result in done.results):
        raise CommandError("no call was completed")
    return ExitCode.DONE


def make_plan(
    server: Server,
    name: str,
    data: str,
    files: Sequence[pathlib.Path],
    times: tuple[float, float, float],
    *,
    metadata: Sequence[str] = (),
    seed: int = 1,
    max_in_flight: int = MAX_IN_FLIGHT,
) -> Plan:
    """Finds the method's description, builds the request, and makes one call.

    Args:
        server: The server to call.
        name: The method.
        data: The request, as JSON.
        files: The ``.proto`` files that describe the method; without any, the server's reflection does.
        times: The timeout of a call, and of reflection; the warm-up; the duration. In seconds.
        metadata: What is sent with each call, reflection included; each a ``name: value``.
        seed: The seed of the schedules of open loops.
        max_in_flight: Calls beyond which an open loop drops those that are due.

    Raises:
        CommandError: The server is unreachable, the method or request is not valid, or the call fails.
    """
    server.tls.check()
    split_name(name)
    pairs = parse_metadata(metadata)
    timeout, warmup, duration = times
    with server.channel() as channel:
        if files:
            method = describe(name, data, pool_of_files(files), "the .proto files")
        else:
            method = describe_by_reflection(channel, name, data, timeout, pairs)
        _call_once(channel, method, timeout, pairs)
    return Plan(method, timeout, warmup, duration, _port(server.target), pairs, seed, max_in_flight)


def _call_once(channel: grpc.Channel, method: Method, timeout: float, metadata: Metadata) -> None:
    try:
        call_once(channel, method, timeout, metadata)
    except grpc.RpcError as error:
        failure = explain(error, failure_name(error))
        raise CommandError(f"the first call of {method.path} failed: {failure}") from error


def _check_sizes(levels: Iterable[Level], plan: Plan) -> None:
    for level in levels:
        check_size(level.rate or 0.0, plan.warmup + plan.duration)


def _measure_all(server: Server, plan: Plan, options: BenchOptions, done: _Measurements) -> None:
    """Adds the results, up to an interruption."""
    levels = options.levels
    needs_capacity = any(level.share is not None for level in levels)
    count = len(levels) * len(options.compare) + needs_capacity
    with (
        contextlib.suppress(KeyboardInterrupt),
        progress_of(Console(stderr=True), plan, count) as report_progress,
    ):
        if needs_capacity:
            done.capacity = measure_capacity(server, plan, report_progress("bare", "capacity"))
            if not done.capacity.complete:
                return
            if not done.capacity.rate:
                raise CommandError("no call was completed while the capacity was measured")
            levels = [level.of_capacity(done.capacity.rate) for level in levels]
            _check_sizes(levels, plan)
        for level, way in ((level, way) for level in levels for way in options.compare):
            done.results.append(_measure(server, plan, way, level, report_progress))
            if not done.results[-1].complete:
                return
        done.interrupted = False


def _measure(server: Server, plan: Plan, way: str, level: Level, report_progress: ProgressReporter) -> Result:
    on_progress = report_progress(way, level)
    create = server.way(way, aio=level.is_open)
    return Result(way, level, None) if create is None else measure(way, create, level, plan, on_progress)


def _port(target: str) -> int | None:
    try:
        return parse_target(target).port or None
    except UsageError:
        # A scheme that only gRPC supports.
        return None
