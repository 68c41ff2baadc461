"""Runs the probe."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from .._failure import CommandError
from .._target import Target, parse_target
from .._tls import Tls
from .advice import Advice, advise, config_of
from .as_json import as_json
from .look import Finding, Manner, look
from .show import show

# Few, for they share one interpreter, and what waits for it seems to be far away.
_AT_ONCE = 4


def run_probe(
    text: str, tls: Tls, *, timeout: float, in_flight: int, with_json: bool, console: Console
) -> dict[str, Any]:
    """Probes a target, and shows what was found.

    Args:
        text: The target.
        tls: How to speak TLS, if at all.
        timeout: Seconds that each step of each address may take.
        in_flight: Calls at once for which the pool is to be made.
        with_json: Whether to show JSON.
        console: Where to show it.

    Returns:
        What was found, as JSON has it.

    Raises:
        CommandError: No address answers, which has been shown by then if there are several.
    """
    tls.check()
    target = parse_target(text)
    findings = _look_at_all(target, tls, timeout)
    advice = _advice(findings, in_flight, is_name=target.is_name)
    told = as_json(target, findings, advice)
    if with_json:
        console.print(json.dumps(told, indent=2), soft_wrap=True, highlight=False, markup=False)
    elif advice or len(findings) > 1:
        show(console, target, findings, advice)
    if not advice:
        raise CommandError(_failure(target, findings))
    return told


def _look_at_all(target: Target, tls: Tls, timeout: float) -> list[Finding]:
    context = tls.context() if tls.used else None
    authority = tls.authority or target.authority
    name = target.host if tls.authority is None else tls.authority.rpartition(":")[0] or tls.authority
    manner = Manner(context, name, authority, timeout)
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        return list(executor.map(lambda address: look(address, manner), target.addresses()))


def _advice(findings: list[Finding], in_flight: int, *, is_name: bool) -> list[Advice]:
    """None if no address answers. It is checked here that a configuration like this is possible."""
    if not any(finding.answers for finding in findings):
        return []
    advice = advise(findings, in_flight=in_flight, is_name=is_name)
    config_of(advice)
    return advice


def _failure(target: Target, findings: list[Finding]) -> str:
    errors = list(dict.fromkeys(finding.error or "it does not answer" for finding in findings))
    if len(findings) > 1:
        return f"{target.text}: none of {len(findings)} addresses answers: {'; '.join(errors)}"
    return f"{target.text}: {errors[0]}"
