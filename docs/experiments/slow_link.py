"""A network link with a rate, a delay and losses, between two network namespaces, for root on Linux.

Packets cross it in this process, through a TUN device in each namespace, because not every kernel can delay or drop
packets itself. A packet waits for those before it, as on a link of that rate; more than a queue holds are dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import heapq
import multiprocessing
import os
import random
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.0.1", "10.213.0.2"
QUEUE_SECONDS = 0.1
MTU = 1500
CONGESTION_CONTROL = "cubic"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000


@dataclasses.dataclass(frozen=True)
class Link:
    """What a link does to packets.

    Attributes:
        rate: Bytes a second, in each direction.
        delay: Seconds that a packet takes in one direction.
        loss: The share of packets that are lost, in each direction.
    """

    rate: float
    delay: float
    loss: float


def why_not() -> str | None:
    """Returns why there can be no link here, or None."""
    if os.geteuid() != 0:
        return "it needs root"
    if shutil.which("ip") is None:
        return "there is no `ip` command"
    try:
        with _namespace("grpcpool-try") as name:
            os.close(_tun(name, SERVER_ADDRESS, CLIENT_ADDRESS))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces or TUN devices are not permitted: {error}"
    return None


@contextlib.contextmanager
def link(how: Link, seed: int) -> Iterator[tuple[str, str]]:
    """Yields the names of two network namespaces, the server's and the client's, that the link connects."""
    stem = f"grpcpool-{os.getpid()}-{threading.get_ident() % 10000}"
    with _namespace(f"{stem}-s") as server, _namespace(f"{stem}-c") as client:
        carrier = multiprocessing.get_context("spawn").Process(
            target=_carry, args=(server, client, how, seed), daemon=True
        )
        carrier.start()
        try:
            _wait_for_address(client)
            # The congestion control that most machines have, whatever this one has.
            for namespace, peer in ((server, CLIENT_ADDRESS), (client, SERVER_ADDRESS)):
                _ip("-n", namespace, "route", "replace", f"{peer}/32", "dev", "link0", "congctl", CONGESTION_CONTROL)
            yield server, client
        finally:
            carrier.kill()
            carrier.join()


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[str]:
    _ip("netns", "add", name)
    try:
        yield name
    finally:
        _ip("netns", "del", name)


def _ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607 (ours)


def _wait_for_address(namespace: str) -> None:
    deadline = time.monotonic() + 10
    while CLIENT_ADDRESS not in _ip("-n", namespace, "addr"):
        if time.monotonic() > deadline:
            raise RuntimeError("the link did not come up")
        time.sleep(0.05)


def _tun(namespace: str, address: str, peer: str) -> int:
    """Returns a TUN device in the namespace; this thread is in its own again afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as own, open(f"/run/netns/{namespace}", "rb") as other:  # noqa: PTH123
        if libc.setns(other.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"link0", _IFF_TUN | _IFF_NO_PI))
        finally:
            libc.setns(own.fileno(), _CLONE_NEWNET)
    _ip("-n", namespace, "link", "set", "link0", "mtu", str(MTU), "txqueuelen", "10000", "up")
    _ip("-n", namespace, "addr", "add", address, "peer", peer, "dev", "link0")
    return device


class _Direction:
    """One direction of the link."""

    def __init__(self, source: int, sink: int, how: Link, dice: random.Random) -> None:
        self.source = source
        self._sink = sink
        self._how = how
        self._dice = dice
        self._free_at = 0.0
        self._packets: list[tuple[float, int, bytes]] = []
        self._number = 0

    def read(self) -> None:
        """Takes what has come in."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                packet = os.read(self.source, MTU + 100)
                now = time.monotonic()
                self._free_at = max(now, self._free_at)
                if self._free_at - now > QUEUE_SECONDS or self._dice.random() < self._how.loss:
                    continue
                self._free_at += len(packet) / self._how.rate
                self._number += 1
                heapq.heappush(self._packets, (self._free_at + self._how.delay, self._number, packet))

    def deliver(self) -> float:
        """Delivers what is due, and returns when the next is."""
        while self._packets:
            due, _, packet = self._packets[0]
            if due > time.monotonic():
                return due
            heapq.heappop(self._packets)
            with contextlib.suppress(BlockingIOError):
                os.write(self._sink, packet)
        return time.monotonic() + 1


def _carry(server: str, client: str, how: Link, seed: int) -> None:
    """Carries packets until the process ends."""
    dice = random.Random(seed)  # noqa: S311 (not a secret)
    at_server = _tun(server, SERVER_ADDRESS, CLIENT_ADDRESS)
    at_client = _tun(client, CLIENT_ADDRESS, SERVER_ADDRESS)
    directions = [_Direction(at_client, at_server, how, dice), _Direction(at_server, at_client, how, dice)]
    selector = selectors.DefaultSelector()
    for direction in directions:
        selector.register(direction.source, selectors.EVENT_READ, direction)
    while True:
        next_due = min(direction.deliver() for direction in directions)
        for key, _ in selector.select(max(0.0, next_due - time.monotonic())):
            key.data.read()
