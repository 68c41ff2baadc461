"""Counts the spans of calls over channels and pools to which tracers were added; run by `test_tracers`.

Each line of input is a task, done in a process forked for it: what takes longest to import, gRPC and OpenTelemetry, is
imported here once. Here no channel, tracer or thread is ever created, so that the fork is safe.

A task is a list: the world (``sync``, ``aio``), the constructor (``insecure``, ``secure``), the server's target, and
what to do, in order:

- ``trace``: OpenTelemetry instruments gRPC. ``untrace`` undoes it.
- ``wrap``: another tracer is put around the constructor that stands there.
- ``replace``: the pool's constructor is put in the place of that.
- ``patch``: `grpcpool.patched` is applied. ``unpatch`` takes it back.
- ``make``: a channel is created by the constructor that stands there.
- ``pool``: a pool is created by the pool's own constructor.

When all that is done, each channel makes two calls. The line of output is the exit code of the task's process and what
that wrote: for each channel, its kind, OpenTelemetry's spans, and the calls that the other tracer saw; or its errors.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import IO, Any, NoReturn

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import grpcpool
import grpcpool.aio
from support.call_server import CERTIFICATE, UU
from support.loops import settle

_SECONDS = 60


class _Sync(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]  # the stubs' is generic
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._seen.append(details.method)
        return continuation(details, request)


class _Aio(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._seen.append(details.method)
        return await continuation(details, request)


class Traced:
    """One of gRPC's constructors, what is done to it, and the channels that were created."""

    def __init__(self, world: str, kind: str, target: str) -> None:
        """Does nothing yet."""
        self._is_aio, self._name = world == "aio", f"{kind}_channel"
        self._home: Any = grpc.aio if self._is_aio else grpc
        self._ours: Any = grpcpool.aio if self._is_aio else grpcpool
        self._arguments: list[Any] = [target]
        if kind == "secure":
            self._arguments.append(grpc.ssl_channel_credentials(CERTIFICATE.with_suffix(".crt").read_bytes()))
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        trace.set_tracer_provider(provider)
        self._seen: list[str] = []
        patch = grpcpool.patched()
        instrumentor: Any = (GrpcAioInstrumentorClient if self._is_aio else GrpcInstrumentorClient)()
        self._steps: dict[str, Callable[[], object]] = {
            "trace": instrumentor.instrument,
            "untrace": instrumentor.uninstrument,
            "wrap": self._wrap,
            "replace": lambda: setattr(self._home, self._name, getattr(self._ours, self._name)),
            "patch": patch.start,
            "unpatch": patch.stop,
            "make": lambda: self._create(self._home),
            "pool": lambda: self._create(self._ours),
        }
        self._channels: list[Any] = []

    def do(self, step: str) -> None:
        """Does one of the steps."""
        self._steps[step]()

    def _wrap(self) -> None:
        before = getattr(self._home, self._name)

        def traced(*arguments: Any, **more: Any) -> Any:
            if self._is_aio:
                more["interceptors"] = [_Aio(self._seen), *(more.get("interceptors") or ())]
                return before(*arguments, **more)
            return grpc.intercept_channel(before(*arguments, **more), _Sync(self._seen))

        setattr(self._home, self._name, traced)

    def _create(self, home: Any) -> None:
        self._channels.append(getattr(home, self._name)(*self._arguments))

    async def count(self) -> list[Any]:
        """Makes the calls; returns what is printed."""
        return [await self._count(channel) for channel in self._channels]

    async def _count(self, channel: Any) -> list[Any]:
        self._exporter.clear()
        self._seen.clear()
        call = channel.unary_unary(UU)
        for _ in range(2):
            answer = call(b"ok", timeout=10)
            assert (await answer if self._is_aio else answer) == b"0"
        closing = channel.close()
        if closing is not None:
            await closing
        await settle(20)
        return [type(channel).__name__, len(self._exporter.get_finished_spans()), len(self._seen)]


async def count(world: str, kind: str, target: str, *steps: str) -> str:
    """Does the steps; returns, as JSON, what has come of them."""
    traced = Traced(world, kind, target)
    for step in steps:
        traced.do(step)
    return json.dumps(await traced.count())


def _do(task: list[str], output: IO[bytes]) -> NoReturn:
    """Does a task in this process, which is its own, and ends the process."""
    code = 1
    try:
        # A task that hangs is killed by this.
        signal.alarm(_SECONDS)
        os.dup2(output.fileno(), 2)
        output.write(asyncio.run(count(*task)).encode())
        output.flush()
        code = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, the process ends here
        traceback.print_exc()
    os._exit(code)


def main() -> None:
    """Does tasks until its input ends."""
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if not pid:
                _do(json.loads(line), output)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output.seek(0)
            written = output.read().decode()
        sys.stdout.write(json.dumps([code, written]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
