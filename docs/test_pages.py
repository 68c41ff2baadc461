"""The tables and headings of the pages agree with the package."""

from __future__ import annotations

import ast
import builtins
import codeop
import csv
import dataclasses
import importlib
import inspect
import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import typer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

import grpcpool
import grpcpool.aio
from grpcpool import events
from grpcpool.cli.app import app
from grpcpool.contrib.opentelemetry import instrument
from grpcpool.contrib.prometheus import PoolCollector
from grpcpool.testing import FakeFactory

DOCS = pathlib.Path(__file__).parent
_SETTING = re.compile(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    """Returns the text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def front_pages_blocks() -> list[str]:
    """Returns the blocks of Python in the README."""
    return re.findall(r"^```python\n(.*?)^```", read("../README.md"), re.MULTILINE | re.DOTALL)


def test_the_front_pages_blocks_can_be_pasted_at_a_prompt() -> None:
    """Python's plain prompt takes each block of README: a block of statements ends with an empty line there."""
    blocks = front_pages_blocks()
    assert len(blocks) == 5
    for block in blocks:
        lines: list[str] = []
        for line in (*block.splitlines(), ""):
            lines.append(line)
            if codeop.compile_command("\n".join(lines)) is not None:
                lines.clear()
        assert lines == []


def test_the_front_pages_blocks_import_what_they_use() -> None:
    """Each block of README runs by itself."""
    for block in front_pages_blocks():
        nodes = list(ast.walk(ast.parse(block)))
        defined = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        known = {*dir(builtins), *defined}
        known |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
        names = [node for node in nodes if isinstance(node, ast.Name)]
        known |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        assert {name.id for name in names} <= known


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


def test_every_public_name_is_in_the_reference() -> None:
    """The pages of the reference document each public name of the package exactly once."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference" / "api").glob("*.md"))
    named = re.findall(r"^\.\. auto(?:class|exception|function):: (\S+)$", pages, re.MULTILINE)
    modules = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    public = [f"{module.__name__}.{name}" for module in (grpcpool, grpcpool.aio) for name in module.__all__]
    assert sorted(named) == sorted(public)
    assert {"grpcpool.events", "grpcpool.testing", "grpcpool.testing.aio"} < set(modules)
    contrib = DOCS.parent / "src" / "grpcpool" / "contrib"
    integrations = {path.stem for path in contrib.iterdir() if not path.name.startswith("_") and path.suffix != ".json"}
    assert {f"grpcpool.contrib.{name}" for name in integrations} < set(modules)


def test_every_guide_is_on_the_index() -> None:
    """The index links each guide twice: in the text, and in the navigation."""
    index = read("index.md")
    for guide in (DOCS / "howto").glob("*.md"):
        assert f"(howto/{guide.name})" in index, guide.name
        assert f"\nhowto/{guide.stem}\n" in index, guide.name


def test_every_link_has_a_text() -> None:
    """A link without a text is one in the built pages only: where the files themselves are shown, it is invisible."""
    for page in DOCS.rglob("*.md"):
        assert "[](" not in page.read_text(encoding="utf-8"), page


def test_every_option_is_in_the_page_on_the_command() -> None:
    """The page on the command names each option that `--help` shows, and no other."""
    group: Any = typer.main.get_command(app)
    commands = [group, *group.commands.values()]
    options = {option for command in commands for each in command.params for option in each.opts if option[:2] == "--"}
    page = read("reference/command.md").replace("\n", " ")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) == options | {"--help"}


def test_messages_in_the_guide_are_those_of_the_package() -> None:
    """Each phrase of a message under "Messages of the pool" is in the package's source."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "src").rglob("*.py"))
    guide = read("howto/troubleshooting.md")
    table = guide[guide.index("## Messages of the pool") : guide.index("## Messages of gRPC")]
    messages = [
        message
        for row in re.findall(r"^\| ([^|]*`[^|]*) \|", table, re.MULTILINE)
        for message in re.findall("`([^`]*)`", row)
    ]
    phrases = {
        phrase.strip().removeprefix("asked for ")
        for message in messages
        for phrase in re.findall(r"[A-Za-z_][A-Za-z_ ]{9,}", message)
    }
    assert len(phrases) > 10
    others = {"Cannot invoke RPC on closed channel"}
    # Python's own; tests/aio_pool/test_mixed_up.py provokes them.
    others |= {"t be used in", "expression", "context manager protocol", "object has no attribute", "was never awaited"}
    assert {phrase for phrase in phrases if phrase not in sources} <= others


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
    assert len(shown) == 24
    for load, way, percent in shown:
        rounds = [row for row in rows if (row["concurrent"], row["way"]) == (load, way)]
        failed = sum(int(row["failed"]) for row in rounds)
        assert percent == f"{100 * failed / (failed + sum(int(row['completed']) for row in rounds)):.1f}"


def test_the_simulated_figures_are_the_same_on_both_pages() -> None:
    """The guide to Kubernetes has the 99th percentiles of the page on cost, rounded."""
    found = {}
    for kind, clients, ours, base in re.findall(
        r"^\| simulated, (.+), clients: (\d+), p99 \| ([\d,]+) ms \| round robin \| ([\d,]+) ms \|",
        read("explanation/cost.md"),
        re.MULTILINE,
    ):
        found[kind, clients] = [
            f"{each} ms" if each < 1000 else f"{each / 1000:.2g} s"
            for each in (int(each.replace(",", "")) for each in (base, ours))
        ]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (\d s), .+ \| (.+) \|$", read("howto/kubernetes.md"), re.MULTILINE)
    assert len(rows) == 3
    for clients, *shown in rows:
        equal, unequal = found["four equal servers", clients], found["one of four servers five times slower", clients]
        assert [*equal, *unequal] == shown


EXPERIMENTS = sorted(page.stem for page in (DOCS / "explanation" / "experiments").glob("*.md"))


def test_every_experiment_is_listed() -> None:
    """The list of experiments links each page, and has its command."""
    listed = read("explanation/experiments.md")
    assert EXPERIMENTS
    for name in EXPERIMENTS:
        assert f"(experiments/{name}.md)" in listed
        assert f"`python docs/experiments/{name}.py`" in listed
        assert f"\nexperiments/{name}\n" in listed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_table_of_an_experiment_is_that_of_its_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of an experiment has the table that its program makes of the raw data, and links all its files."""
    # The programs import what they share from their own folder, and servers from that of the benchmarks.
    monkeypatch.syspath_prepend(str(DOCS / "experiments"))
    program = importlib.import_module(name)
    page = read(f"explanation/experiments/{name}.md")
    assert f"\n\n{program.table()}\n\n" in page
    for suffix in (".csv", ".py", ".svg"):
        assert f"(../../experiments/{name}{suffix})" in page.replace("<", "(").replace(">", ")"), suffix


def test_the_page_on_cost_is_drawn_from_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on cost has each table that the benchmarks draw from their results, once, as they draw it."""
    monkeypatch.syspath_prepend(str(DOCS.parent / "bench"))
    drawing = importlib.import_module("_page")
    page = read("explanation/cost.md")
    assert drawing.filled(page) == page
    names = re.findall(r"<!-- drawn: (\w+) -->", page)
    assert sorted(names) == sorted(["conditions", "bounds", *importlib.import_module("_results").PANELS])
    assert page.count("<!-- end -->") == len(names)
