"""The tests' servers themselves."""

from __future__ import annotations

from support.programs import run_python

_FREEZES_SERVERS_STARTED_AT_ONCE = """
import contextlib
from support.servers import Server
from support.waiting import together

with contextlib.ExitStack() as stack:
    servers = together(4, lambda _: stack.enter_context(Server()))
    for server in servers:
        server.freeze()
        server.thaw()
    for server in servers:
        server.restart()
        server.freeze()
"""


def test_the_first_servers_may_be_started_at_once() -> None:
    """Servers that several threads start first in a process can be frozen, killed and restarted by any of them."""
    run_python(_FREEZES_SERVERS_STARTED_AT_ONCE)
