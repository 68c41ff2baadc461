"""Runs ``grpcpool probe``."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

from rich.console import Console

from .._deadline import Deadline, call_each, call_within
from .._errors import CommandError, UsageError
from .._output import print_json
from .._target import Address, Target, parse_target
from .._tls import Tls
from .as_json import as_json
from .probe_address import AddressReport, ProbeOptions, probe_address
from .recommend import Recommendation, config_of, recommend
from .terminal import print_tables

# Few: more threads would wait for the interpreter, which would inflate the measured times.
_THREADS = 4


def run_probe(
    text: str, tls: Tls, *, timeout: float, in_flight: int, with_json: bool, console: Console
) -> dict[str, Any]:
    """Probes a target, and prints the results.

    Args:
        text: The target.
        tls: The TLS options.
        timeout: Seconds that all of it may take.
        in_flight: Concurrent calls that the recommended pool must carry.
        with_json: Whether to print JSON.
        console: Where to print.

    Returns:
        The results, as in the JSON.

    Raises:
        CommandError: No address answers. If there are several, the results have been printed.
    """
    tls.check()
    target = parse_target(text)
    reports = _probe_all(target, tls, timeout)
    recommendations = _recommend(reports, in_flight, is_name=target.is_name)
    results = as_json(target, reports, recommendations)
    if with_json:
        print_json(console, results)
    elif recommendations or len(reports) > 1:
        print_tables(console, target, reports, recommendations)
    if not recommendations:
        raise CommandError(_failure(target, reports))
    return results


def _probe_all(target: Target, tls: Tls, timeout: float) -> list[AddressReport]:
    """Probes each address, by one deadline for all.

    If there are more than are probed at once, the time left is shared by the rounds that are left: a silent address
    takes no more than its share, and what a quick one leaves is for those after it.
    """
    deadline = Deadline(timeout)
    context = tls.context() if tls.used else None
    authority = tls.authority or target.authority
    name = target.host if tls.authority is None else tls.authority.rpartition(":")[0] or tls.authority
    if context is not None:
        _check_name(context, name)
    options = ProbeOptions(context, name, authority)
    addresses = _resolve(target, deadline)

    def probe(index: int) -> AddressReport:
        rounds = -(-(len(addresses) - index) // _THREADS)
        until = deadline if len(addresses) <= _THREADS else deadline.part(rounds)
        return probe_address(addresses[index], options, until)

    return call_each([partial(probe, index) for index in range(len(addresses))], _THREADS)


def _check_name(context: ssl.SSLContext, name: str) -> None:
    """Raises `UsageError` for a name that begins with a dot, or has a label of more than 63 characters."""
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except ValueError as error:
        raise UsageError(f"{name!r} is not a name that a certificate can have") from error


def _resolve(target: Target, deadline: Deadline) -> tuple[Address, ...]:
    try:
        return target.fixed or call_within(deadline, target.addresses)
    except TimeoutError as error:
        raise CommandError(f"{target.host}: the name did not resolve within {deadline}") from error


def _recommend(reports: list[AddressReport], in_flight: int, *, is_name: bool) -> list[Recommendation]:
    """Returns an empty list if no address answers. Checks that the recommended configuration is valid."""
    if not any(report.answers for report in reports):
        return []
    recommendations = recommend(reports, in_flight=in_flight, is_name=is_name)
    config_of(recommendations)
    return recommendations


def _failure(target: Target, reports: list[AddressReport]) -> str:
    errors = list(dict.fromkeys(report.error or "no answer" for report in reports))
    if len(reports) > 1:
        return f"{target.with_port}: none of {len(reports)} addresses answered: {'; '.join(errors)}"
    return f"{target.with_port}: {errors[0]}"
