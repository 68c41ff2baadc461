"""Stubs are sent to the worker processes of real engines: each of these has one pool, and leaves nothing behind."""

from __future__ import annotations

import pathlib
import re
import shutil
import sys
from collections.abc import Iterator

import pytest

from examples.programs import EXAMPLES, Watch, output_of, served

ENGINES = EXAMPLES / "engines"
MAX_SIZE = 2
"""The size of the pools of the programs."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server for all of these tests."""
    with served() as address:
        yield address


def run(target: str, program: str, *arguments: str, **environment: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Runs a program; nothing of it is left then.

    Returns:
        For each line that it printed, how many tasks were done and in how many processes; and the most connections
        that each process had at once, seen from outside.
    """
    with Watch(target) as watch:
        said = output_of("-W", "ignore", f"engines/{program}", target, *arguments, seconds=200, environment=environment)
    watch.wait_until_nothing_is_left()
    figures = re.findall(r"^(\d+) [a-z ]+ in (\d+) processes$", said, re.MULTILINE)
    return [(int(tasks), int(processes)) for tasks, processes in figures], dict(watch.most)


def assert_one_pool_a_process(connections: dict[int, int], processes: int) -> None:
    """That many processes have connected, and none had more connections than its pool may have; one had as many."""
    assert len(connections) == processes
    assert max(connections.values()) == MAX_SIZE


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_standard_library(target: str, method: str) -> None:
    """Tasks of an executor, and of a pool of processes, have their stub as an argument."""
    ((tasks, processes),), connections = run(target, "process_pool.py", method)
    assert (tasks, processes) == (100, 4)
    assert_one_pool_a_process(connections, 4)


def test_joblib(target: str) -> None:
    """A function with a stub in its closure runs in loky's processes."""
    pytest.importorskip("joblib")
    ((tasks, processes),), connections = run(target, "joblib_loky.py")
    assert (tasks, processes) == (100, 2)
    assert_one_pool_a_process(connections, 2)


def test_dask(target: str) -> None:
    """1,000 tasks in the threads of two processes share two pools; no call fails."""
    pytest.importorskip("distributed")
    ((tasks, processes),), connections = run(target, "dask_cluster.py")
    assert (tasks, processes) == (1000, 2)
    assert_one_pool_a_process(connections, 2)


def test_spark(target: str) -> None:
    """The function of `mapInPandas` makes its calls in Spark's worker processes."""
    pytest.importorskip("pyspark")
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    ((rows, processes),), connections = run(
        target, "spark_map.py", PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1"
    )
    assert rows == 1000
    assert_one_pool_a_process(connections, processes)


def test_ray(target: str) -> None:
    """Tasks, actors with threads, actors on asyncio and `map_batches` make their calls in Ray's worker processes."""
    pytest.importorskip("ray")
    lines, connections = run(target, "ray_workers.py", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    assert [tasks for tasks, _ in lines] == [1000] * 4
    # Each actor has a process of its own; other processes may run tasks of both kinds.
    assert [processes for _, processes in lines[1:3]] == [1, 1]
    assert max(connections.values()) == MAX_SIZE


def test_all_are_tested() -> None:
    """Every program in the folder is run by a test here, and listed in the README."""
    source, listed = pathlib.Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    for program in ENGINES.glob("*.py"):
        assert f'"{program.name}"' in source
        assert f"engines/{program.name}" in listed
