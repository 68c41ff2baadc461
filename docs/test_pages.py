"""The tables and headings of the pages agree with the package."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

import grpcpool
from grpcpool import events
from grpcpool.contrib.opentelemetry import instrument
from grpcpool.contrib.prometheus import PoolCollector
from grpcpool.testing import FakeFactory

DOCS = pathlib.Path(__file__).parent
_SETTING = re.compile(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    """Returns the text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_setting_has_its_section() -> None:
    """The page on configuration has exactly one section for each field of `PoolConfig`."""
    described = [name for name, _ in _SETTING.findall(read("reference/configuration.md"))]
    assert sorted(described) == sorted(field.name for field in dataclasses.fields(grpcpool.PoolConfig))


@pytest.mark.parametrize("field", dataclasses.fields(grpcpool.PoolConfig), ids=lambda field: field.name)
def test_a_setting_has_its_default(field: dataclasses.Field[object]) -> None:
    """The section of a setting gives its default."""
    section = dict(_SETTING.findall(read("reference/configuration.md")))[field.name]
    default = str(field.default) if isinstance(field.default, grpcpool.Mode) else repr(field.default).replace("'", '"')
    assert f"- **Default:** `{default}`\n" in section
    assert "- **Too high:**" in section or "- **Danger:**" in section


def test_every_error_is_in_the_table() -> None:
    """The page on errors names each error of the package."""
    public = {name for name in grpcpool.__all__ if name.endswith("Error")}
    assert {name for name in public if f"`{name}`" in read("reference/errors.md")} == public - {"PoolError"}


def test_every_event_is_in_the_table() -> None:
    """The page on events has a row for each hook of a listener, and names each event."""
    page = read("reference/events.md")
    hooks = [name for name, _ in inspect.getmembers(grpcpool.Listener, inspect.isfunction) if not name.startswith("_")]
    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == sorted(hooks)
    names = {event for event in events.__all__ if not event.endswith("Event")}
    assert {event for event in names if f"| `{event}` |" in page} == names


def test_every_metric_is_in_its_table() -> None:
    """The page on metrics names exactly the exported metrics."""
    reader = InMemoryMetricReader()
    registry = CollectorRegistry()
    with grpcpool.ChannelPool(FakeFactory(), grpcpool.PoolConfig(max_size=1)) as pool:
        instrument(pool, MeterProvider([reader]))
        registry.register(PoolCollector(pool))
        with ThreadPoolExecutor(1) as threads:
            with pool.acquire():
                waiting = threads.submit(pool.acquire)
                while not pool.stats().waiting:
                    time.sleep(0.001)
            waiting.result().release()
        exported = {family.name + "_total" * (family.type == "counter") for family in registry.collect()}
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    exported |= {metric.name for scope in scopes for metric in scope.metrics}
    rows = re.findall(r"^\| ((?:`[a-z_.]+`(?:, )?)+) \|", read("reference/metrics.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)} == exported


def test_the_experiments_table_is_that_of_its_data() -> None:
    """Each row of the experiment's table has the failed calls of the raw data."""
    with (DOCS / "experiments" / "one_channel.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = re.findall(r"^\| (\d+) \| ([^|]+) \| ([\d.]+) \|", read("explanation/why.md"), re.MULTILINE)
    assert len(shown) == 20
    for load, way, percent in shown:
        rounds = [row for row in rows if (row["concurrent"], row["way"]) == (load, way)]
        failed = sum(int(row["failed"]) for row in rounds)
        assert percent == f"{100 * failed / (failed + sum(int(row['completed']) for row in rounds)):.1f}"
