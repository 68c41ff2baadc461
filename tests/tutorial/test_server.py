"""The server of the tutorial, as readers start it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from orders_servers import ORDERS, serving

pytestmark = pytest.mark.timeout(60)


def test_a_second_server_on_the_same_port_says_so() -> None:
    """It ends with an error: gRPC's default would let both serve, and clients would reach one or the other."""
    with serving() as address:
        port = address.rpartition(":")[2]
        second = subprocess.run(  # noqa: S603 -- our own script
            [sys.executable, str(ORDERS), port],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert second.returncode == 1
    assert f"Failed to bind to address 127.0.0.1:{port}" in second.stderr
