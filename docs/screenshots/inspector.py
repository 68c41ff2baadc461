"""Takes the pictures of the live page in this folder: ``python docs/screenshots/inspector.py``.

Starts a server and two pools, and uses one of them for 45 seconds, at times beyond its capacity. Then Chromium renders
the page: light and dark, wide and narrow. Needs the extra ``test``, and Debian's ``chromium`` and ``chromium-driver``,
which ``.ci/components`` installs.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

import grpcpool  # noqa: E402
from grpcpool.contrib.inspector import Inspector, serve  # noqa: E402
from support.browser import Browser  # noqa: E402 -- of the tests
from support.servers import Server  # noqa: E402 -- of the tests

EVERY, KEEP = 0.2, 45.0
SLOW = "/test.Test/Slow"

# Name, colour scheme, width and height of each picture.
PICTURES = (
    ("inspector-light", "light", 1280, 1000),
    ("inspector-dark", "dark", 1280, 1000),
    ("inspector-narrow-light", "light", 360, 900),
    ("inspector-narrow-dark", "dark", 360, 900),
)


def use(pool: grpcpool.ChannelPool, over: threading.Event) -> None:
    """Makes calls of 50 to 400 ms; their number at once follows a wave."""
    chance = random.Random(7)  # noqa: S311 -- no secret
    slow = pool.unary_unary(SLOW)
    running: list[Any] = []
    began = time.monotonic()
    while not over.wait(0.02):
        at = time.monotonic() - began
        level = 40 + 26 * math.sin(at / 3.5) + 22 * math.sin(at / 1.3) + chance.uniform(-3, 3)
        running = [call for call in running if not call.done()]
        running += [slow.future(b"%d" % chance.randint(50, 400)) for _ in range(len(running), round(level))]


def lease(pool: grpcpool.ChannelPool, over: threading.Event) -> None:
    """Leases a whole connection, and keeps it beyond `max_age`."""
    with pool.acquire():
        over.wait()


@contextlib.contextmanager
def busy_pool(target: str) -> Iterator[grpcpool.ChannelPool]:
    """Yields a pool with slightly more load than it can carry."""
    config = grpcpool.PoolConfig(
        min_size=2, max_size=4, max_streams=16, acquire_timeout=0.35, max_waiters=24, idle_timeout=6.0, max_age=20.0
    )
    over = threading.Event()
    with grpcpool.insecure_channel(target, config=config, name="orders") as pool:
        users = [threading.Thread(target=work, args=(pool, over)) for work in (lease, use)]
        for user in users:
            user.start()
        try:
            yield pool
        finally:
            over.set()
            for user in users:
                user.join()


@contextlib.contextmanager
def failing_pool() -> Iterator[grpcpool.ChannelPool]:
    """Yields a pool whose server is unreachable."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{holder.getsockname()[1]}"
        with grpcpool.insecure_channel(target, config=grpcpool.PoolConfig(max_size=4), name="invoices") as pool:
            pool.unary_unary(SLOW).future(b"1", timeout=KEEP, wait_for_ready=True)
            yield pool


def take_pictures(inspector: Inspector, seconds: float) -> None:
    """Waits until the timeline is full, and takes the pictures."""
    programs = (shutil.which("chromium") or "chromium", shutil.which("chromedriver") or "chromedriver")
    with serve(inspector) as served, Browser(*programs) as browser:
        time.sleep(seconds)
        for name, scheme, width, height in PICTURES:
            browser.prefer(color_scheme=scheme, reduced_motion="reduce")
            browser.open(served.url, width=width, height=height)
            time.sleep(1.5)
            path = HERE / f"{name}.png"
            browser.screenshot(path)
            sys.stdout.write(f"{path.name}: {path.stat().st_size // 1000} kB\n")


def main() -> None:
    """Takes the pictures; an argument sets the length of the timeline in seconds."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else KEEP + 2
    with Server() as server, busy_pool(server.target) as busy, failing_pool() as failing:
        take_pictures(Inspector(busy, failing, every=EVERY, keep=KEEP), seconds)


if __name__ == "__main__":
    main()
