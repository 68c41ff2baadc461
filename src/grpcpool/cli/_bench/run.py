"""Runs ``grpcpool bench``."""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import shlex
from collections.abc import Sequence
from typing import Final

import grpc
from rich.console import Console

from ..._demo.call_counter import failure_name
from .._errors import CommandError, ExitCode, UsageError
from .._output import print_json
from .._target import parse_target
from .channels import WAYS, Server
from .load import call_once, measure
from .methods import Method, describe, describe_by_reflection, pool_of_files, split_name
from .report import write_report
from .result import BenchRun, Plan, Result
from .terminal import ProgressReporter, print_table, progress_of

MAX_CALLERS: Final = 4000
"""The most callers of a closed loop."""


class BenchOptions:
    """The options that say what to compare and where to write the report."""

    def __init__(self, concurrency: str, compare: str, report: pathlib.Path | None, arguments: Sequence[str]) -> None:
        """Parses the comma-separated lists; `arguments` are the command line, which the report shows.

        Raises:
            UsageError: A number or way is not valid, or the report cannot be at that path.
        """
        self.concurrency = [_count(part) for part in concurrency.split(",")]
        self.compare = [_way(part.strip()) for part in compare.split(",")]
        self.report = report
        self.command = shlex.join(["grpcpool", *arguments])
        if report is not None and not report.absolute().parent.is_dir():
            raise UsageError(f"--report {report}: the folder does not exist")
        if report is not None and report.is_dir():
            raise UsageError(f"--report {report}: is a folder, not a file")


def run_bench(server: Server, plan: Plan, options: BenchOptions, *, with_json: bool, console: Console) -> ExitCode:
    """Measures each way with each number of callers, and prints the results, also after an interruption.

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
    results, interrupted = _measure_all(server, plan, options)
    run = BenchRun(server.target, plan, options.command, results, interrupted, began)
    if with_json:
        print_json(console, run.as_json())
    else:
        print_table(console, run)
    if options.report is not None:
        write_report(options.report, run)
    if interrupted:
        return ExitCode.INTERRUPTED
    if not any(result.recorder is not None and result.recorder.completed for result in results):
        raise CommandError("no call was completed")
    return ExitCode.DONE


def make_plan(
    server: Server,
    name: str,
    data: str,
    files: Sequence[pathlib.Path],
    times: tuple[float, float, float],
) -> Plan:
    """Finds the method's description, builds the request, and makes one call.

    Args:
        server: The server to call.
        name: The method.
        data: The request, as JSON.
        files: The ``.proto`` files that describe the method; without any, the server's reflection does.
        times: The timeout of a call, and of reflection; the warm-up; the duration. In seconds.

    Raises:
        CommandError: The server is unreachable, the method or request is not valid, or the call fails.
    """
    server.tls.check()
    split_name(name)
    timeout, warmup, duration = times
    with server.channel() as channel:
        if files:
            method = describe(name, data, pool_of_files(files), "the .proto files")
        else:
            method = describe_by_reflection(channel, name, data, timeout)
        _call_once(channel, method, timeout)
    return Plan(method, timeout, warmup, duration, _port(server.target))


def _call_once(channel: grpc.Channel, method: Method, timeout: float) -> None:
    try:
        call_once(channel, method, timeout)
    except grpc.RpcError as error:
        raise CommandError(
            f"the first call of {method.path} failed: {failure_name(error)}: {error.details()}"
        ) from error


def _measure_all(server: Server, plan: Plan, options: BenchOptions) -> tuple[list[Result], bool]:
    """Returns the results so far, and whether an interruption ended the run."""
    results: list[Result] = []
    measurements = [(callers, way) for callers in options.concurrency for way in options.compare]
    with (
        contextlib.suppress(KeyboardInterrupt),
        progress_of(Console(stderr=True), plan, len(measurements)) as report_progress,
    ):
        for callers, way in measurements:
            results.append(_measure(server, plan, way, callers, report_progress))
            if not results[-1].complete:
                return results, True
        return results, False
    return results, True


def _measure(server: Server, plan: Plan, way: str, callers: int, report_progress: ProgressReporter) -> Result:
    on_progress = report_progress(way, callers)
    create = server.way(way)
    return Result(way, callers, None) if create is None else measure(way, create, callers, plan, on_progress)


def _port(target: str) -> int | None:
    try:
        return parse_target(target).port or None
    except UsageError:
        # A scheme that only gRPC supports.
        return None


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise UsageError(f"--concurrency: {text.strip()!r} is not a number of callers")
    if int(text) > MAX_CALLERS:
        reason = f"each caller is a thread, and one process runs at most {MAX_CALLERS:,} well"
        raise UsageError(f"--concurrency: {int(text):,} callers are too many: {reason}")
    return int(text)


def _way(text: str) -> str:
    if text not in WAYS:
        raise UsageError(f"--compare: {text!r} is not one of {', '.join(WAYS)}")
    return text
