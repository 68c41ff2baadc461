"""Runs the benchmark."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pathlib
import shlex
from collections.abc import Callable, Sequence

import grpc
from rich.console import Console

from ..._demo.tally import named
from .._failure import CommandError, ExitCode, UsageError
from .._target import parse_target
from .load import call_once, measure
from .methods import Method, describe, pool_by_reflection, pool_of_files, split_name
from .report import write_report
from .result import Account, Plan, Result
from .show import Telling, progress_of, show
from .tally import Tally
from .ways import WAYS, Server


class Wish:
    """What is asked of the benchmark. Lists are as they were typed."""

    def __init__(self, concurrency: str, compare: str, report: pathlib.Path | None, arguments: Sequence[str]) -> None:
        """Understands them; the report tells the `arguments` of the command line.

        Raises:
            UsageError: A number is none, a way is not known, or the report has no place.
        """
        self.concurrency = [_count(part) for part in concurrency.split(",")]
        self.compare = [_way(part.strip()) for part in compare.split(",")]
        self.report = report
        self.command = shlex.join(["grpcpool", *arguments])
        if report is not None and not report.absolute().parent.is_dir():
            raise UsageError(f"--report {report}: there is no such folder")
        if report is not None and report.is_dir():
            raise UsageError(f"--report {report}: is a folder, and should be a file")


def run_bench(server: Server, plan: Plan, wish: Wish, *, with_json: bool, console: Console) -> ExitCode:
    """Measures each way with each number of callers, and shows what came of it, also if it is interrupted.

    Args:
        server: Where to call.
        plan: What to call, and for how long.
        wish: The rest.
        with_json: Whether to show JSON.
        console: Where to show it.

    Returns:
        The exit code.

    Raises:
        CommandError: Not one call was completed, which has been shown by then; or the report cannot be written.
    """
    began = dt.datetime.now(dt.UTC)
    results, interrupted = _measure_all(server, plan, wish)
    account = Account(server.target, plan, wish.command, results, interrupted, began)
    if with_json:
        console.print(json.dumps(account.as_json(), indent=2), soft_wrap=True, highlight=False, markup=False)
    else:
        show(console, account)
    if wish.report is not None:
        write_report(wish.report, account)
    if interrupted:
        return ExitCode.INTERRUPTED
    if not any(result.tally is not None and result.tally.completed for result in results):
        raise CommandError("not one call was completed")
    return ExitCode.DONE


def make_plan(
    server: Server,
    name: str,
    data: str,
    files: Sequence[pathlib.Path],
    times: tuple[float, float, float],
) -> Plan:
    """Finds out what to call, and calls it once.

    Args:
        server: Where.
        name: The method.
        data: Its request, as JSON.
        files: What describes it; none: the server does.
        times: The timeout of a call, the warm-up and the duration, in seconds.

    Raises:
        CommandError: There is no such server, method or request, or the call fails.
    """
    server.tls.check()
    split_name(name)
    timeout, warmup, duration = times
    with server.channel() as channel:
        pool = pool_of_files(files) if files else pool_by_reflection(channel, name, timeout)
        method = describe(name, data, pool, "the files" if files else "what the server describes")
        _try(channel, method, timeout)
    return Plan(method, timeout, warmup, duration, _port(server.target))


def _try(channel: grpc.Channel, method: Method, timeout: float) -> None:
    try:
        call_once(channel, method, timeout)
    except grpc.RpcError as error:
        raise CommandError(f"a first call of {method.path} failed: {named(error)}: {error.details()}") from error


def _measure_all(server: Server, plan: Plan, wish: Wish) -> tuple[list[Result], bool]:
    """Returns what there is, and whether it was interrupted, amid a way or between two."""
    results: list[Result] = []
    measurings = [(callers, way) for callers in wish.concurrency for way in wish.compare]
    with (
        contextlib.suppress(KeyboardInterrupt),
        progress_of(Console(stderr=True), plan, len(measurings)) as telling,
    ):
        for callers, way in measurings:
            results.append(_measure(server, plan, way, callers, telling))
            if not results[-1].complete:
                return results, True
        return results, False
    return results, True


def _measure(server: Server, plan: Plan, way: str, callers: int, telling: Telling) -> Result:
    told: Callable[[Tally], None] = telling(way, callers)
    make = server.way(way)
    return Result(way, callers, None) if make is None else measure(way, make, callers, plan, told)


def _port(target: str) -> int | None:
    try:
        return parse_target(target).port or None
    except UsageError:
        # A scheme that gRPC understands by itself.
        return None


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise UsageError(f"--concurrency: {text.strip()!r} is no number of callers")
    return int(text)


def _way(text: str) -> str:
    if text not in WAYS:
        raise UsageError(f"--compare: {text!r} is not one of {', '.join(WAYS)}")
    return text
