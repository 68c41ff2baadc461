"""What the processes of a test run share."""

from __future__ import annotations

import pathlib

from support.programs import run_python

_CONFTEST = """
from support.parallel import pytest_cmdline_main

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        (config.cache.mkdir("shared") / "written").touch()
"""

_TEST = """
def test_it(pytestconfig):
    assert hasattr(pytestconfig, "workerinput")
    assert (pytestconfig.cache.mkdir("shared") / "written").exists()
"""

_RUN = """
import sys
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_only_one_process_clears_the_cache(tmp_path: pathlib.Path) -> None:
    """With `--cache-clear`, before it starts the others: these would clear it while they all write to it."""
    files = {"conftest.py": _CONFTEST, "test_it.py": _TEST, "pytest.ini": "[pytest]"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    before = tmp_path / ".pytest_cache" / "d" / "before"
    before.mkdir(parents=True)
    options = ["-c", str(tmp_path / "pytest.ini"), "-p", "xdist", "-n", "1", "--cache-clear"]
    run_python(_RUN, *options, str(tmp_path), environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert not before.exists()
