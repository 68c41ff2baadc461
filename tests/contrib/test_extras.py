"""The integrations without what they need."""

from __future__ import annotations

import pytest

from support.programs import run_python

_IMPORT = """
import sys
sys.modules[sys.argv[1]] = None
try:
    import grpcpool.contrib.{extra}
except ModuleNotFoundError as error:
    print(error, error.name)
"""


@pytest.mark.parametrize(
    ("extra", "package"),
    [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry"), ("inspector", "starlette")],
)
def test_the_extra_is_named(extra: str, package: str) -> None:
    """Without its extra, an integration says what to install."""
    said = run_python(_IMPORT.format(extra=extra), package).stdout
    needed, named = said.split(": ")
    module = needed.removeprefix(f"grpcpool.contrib.{extra} needs ")
    assert module.partition(".")[0] == package
    assert named == f'pip install "grpcpool[{extra}]" {module}\n'
