"""How many processes run the tests, and how the tests are dealt out to them.

This is a hook, not `addopts`: those would keep pytest from starting with `-p no:xdist`.
"""

from __future__ import annotations

import pytest

# Most tests wait for servers: four processes keep two cores busy.
_PROCESSES = 4


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Sets what the command line leaves open, before pytest-xdist reads it; `-n 0` for a debugger."""
    # The processes that pytest-xdist starts have none of their own.
    if hasattr(config, "workerinput"):
        # The process that started them has cleared the cache. They would remove what others write to it.
        config.option.cacheclear = False
        return
    # Without pytest-xdist there is no such option.
    if not hasattr(config.option, "numprocesses"):
        return
    if config.option.numprocesses is None and not config.option.tx:
        config.option.numprocesses = _PROCESSES
    if config.option.dist == "no":
        config.option.dist = "worksteal"
