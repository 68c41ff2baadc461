"""The world of threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc

import grpcpool
from grpcpool import ChannelPool, PoolConfig, isolated
from grpcpool.testing import FakeChannel, FakeFactory
from resilience.worlds import Load, Options, Subject, World
from support.servers import RECONNECT_SOON, unary
from support.waiting import LONG, background


class ThreadedLoad(Load):
    """Each caller is a thread."""

    def __init__(self, callers: int, call: Callable[[], object]) -> None:
        """This many callers of `call`."""
        super().__init__(callers)
        self._call = call

    def start(self) -> list[Future[None]]:
        """Starts the threads."""
        return [background(partial(self._run, i)) for i in range(self.callers)]

    def _run(self, caller: int) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                answer = self._call()
            except grpc.RpcError as error:
                self.note(caller, began, error)
            else:
                self.note(caller, began, None, answer)


class ThreadedSubject(Subject):
    """A `grpcpool.ChannelPool`."""

    pool: ChannelPool
    kinds = ("blocking", "future", "stream")

    def open(self, timeout: float | None = None) -> None:
        """Opens the pool."""
        self.pool.open(timeout)

    def begin(self, method: str, request: bytes, *, kind: str | None = None, **how: Any) -> Future[bytes]:
        """Makes a call on a thread of its own; a call of kind ``future`` begins on this one."""
        how.setdefault("timeout", LONG)
        if kind == "future":
            return background(self.pool.unary_unary(method).future(request, **how).result)
        if kind == "stream":
            return background(lambda: b",".join(self.pool.unary_stream(method)(request, **how)))
        return background(lambda: unary(self.pool, method, request, **how))

    def acquire(self, **how: Any) -> Future[Any]:
        """Leases on a thread of its own."""
        return background(lambda: self.pool.acquire(**how))

    def release(self, lease: Any) -> None:
        """Releases it."""
        lease.release()

    def load(self, callers: int, method: str, request: bytes, **how: Any) -> Load:
        """Threads that make blocking calls."""
        return ThreadedLoad(callers, lambda: unary(self.pool, method, request, **how))

    def close(self) -> None:
        """Closes the pool."""
        self.pool.close(0)


class Threads(World):
    """`grpcpool`."""

    name = "threads"

    def channel_maker(self, target: str) -> Callable[[], grpc.Channel]:
        """A factory of `grpc.Channel`s."""
        return lambda: grpc.insecure_channel(target, isolated(RECONNECT_SOON))

    def fake_maker(self, **how: Any) -> FakeFactory:
        """A factory of fakes."""
        return FakeFactory(lambda: FakeChannel(**how))

    def _over_target(self, target: str, options: Options, config: PoolConfig, **how: Any) -> Subject:
        channel = grpcpool.secure_channel if "credentials" in how else grpcpool.insecure_channel
        return ThreadedSubject(channel(target, options=options, config=config, **how))

    def _over_factory(self, factory: Callable[[], Any], config: PoolConfig) -> Subject:
        return ThreadedSubject(ChannelPool(factory, config))
