"""Lets the programs that tests start share compiled modules, also where Python is not to write any.

`PYTHONDONTWRITEBYTECODE` keeps Python from writing beside the sources. Each of the hundreds of programs would compile
the whole project again, which takes longer than most of them run.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

import pytest


def share_compiled(config: pytest.Config) -> None:
    """Until pytest ends, programs that it starts keep what they compile in a folder of its own."""
    if not sys.dont_write_bytecode or "PYTHONDONTWRITEBYTECODE" not in os.environ:
        return
    folder, process = tempfile.mkdtemp(prefix="grpcpool-compiled-"), os.getpid()
    patch = pytest.MonkeyPatch()
    patch.delenv("PYTHONDONTWRITEBYTECODE")
    patch.setenv("PYTHONPYCACHEPREFIX", folder)

    def end() -> None:
        # Processes that are forked from this one end in the same way.
        if os.getpid() == process:
            patch.undo()
            shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(end)
