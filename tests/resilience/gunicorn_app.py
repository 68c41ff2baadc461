"""A WSGI application with a pool created at import; gunicorn serves it in the tests.

``TARGET`` is the server's address. With ``USED=yes`` the pool is used at once, which under ``--preload`` is before the
fork, in the master.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import grpcpool
from support.servers import PEER, unary

CALLS = 8

pool = grpcpool.insecure_channel(os.environ["TARGET"], config=grpcpool.PoolConfig(min_size=2), name="web")

used_in_master = ""
if os.environ.get("USED") == "yes":
    pool.open()
    used_in_master = unary(pool, PEER, b"").decode()
    sys.stderr.write(f"the pool was used in process {os.getpid()}\n")


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Makes some calls; answers with the process id and the connections used."""
    peers = sorted({unary(pool, PEER, b"").decode() for _ in range(CALLS)})
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {"pid": os.getpid(), "peers": peers, "calls": pool.stats().acquired, "master": used_in_master}
    return [json.dumps(answer).encode()]
