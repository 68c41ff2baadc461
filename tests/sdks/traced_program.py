"""Counts the spans of calls over pools under OpenTelemetry, Sentry and ddtrace; run by `test_tracers`.

It does tasks as `contrib.traced_program` does, with two steps more: at ``sentry`` and ``ddtrace`` that tracer
instruments gRPC. The line of output has, for each channel, its kind and the number of the spans of each tracer.
"""

from __future__ import annotations

import os
from typing import Any

from contrib import traced_program
from contrib.traced_program import Traced
from support.call_server import UU
from support.loops import settle


class _Sentry:
    def __init__(self) -> None:
        import sentry_sdk  # noqa: PLC0415 -- only where it is wanted: it takes long to import
        from sentry_sdk.integrations.grpc import GRPCIntegration  # noqa: PLC0415
        from sentry_sdk.transport import Transport  # noqa: PLC0415

        events: list[Any] = []

        class Keep(Transport):  # type: ignore[misc, unused-ignore]
            def capture_envelope(self, envelope: Any) -> None:
                events.append(envelope.get_transaction_event())

        self._events = events
        self._sdk = sentry_sdk
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:1/1",
            transport=Keep,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[GRPCIntegration()],
        )

    def begin(self) -> None:
        self._events.clear()
        self._transaction = self._sdk.start_transaction(name="test")
        self._transaction.__enter__()

    def end(self) -> int:
        self._transaction.__exit__(None, None, None)
        return sum(span["op"] == "grpc.client" for event in self._events for span in event["spans"])


class _Ddtrace:
    def __init__(self) -> None:
        os.environ.update(DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false")
        import ddtrace  # noqa: PLC0415 -- see above
        from ddtrace.trace import TraceFilter, tracer  # noqa: PLC0415

        spans: list[Any] = []

        class Keep(TraceFilter):  # type: ignore[misc, unused-ignore]
            def process_trace(self, trace: list[Any]) -> None:
                spans.extend(trace)

        self._spans = spans
        tracer.configure(trace_processors=[Keep()])
        ddtrace.patch(grpc=True)

    def begin(self) -> None:
        self._spans.clear()

    def end(self) -> int:
        return sum(span.name == "grpc" for span in self._spans)


class TracedByMore(Traced):
    """The steps, and the tracers that they have started."""

    def __init__(self, world: str, kind: str, target: str) -> None:
        """Does nothing yet."""
        super().__init__(world, kind, target)
        self._tracers: list[Any] = []
        self._steps.update(
            sentry=lambda: self._tracers.append(_Sentry()),
            ddtrace=lambda: self._tracers.append(_Ddtrace()),
        )

    async def _count(self, channel: Any) -> list[Any]:
        self._exporter.clear()
        for tracer in self._tracers:
            tracer.begin()
        call = channel.unary_unary(UU)
        for _ in range(2):
            answer = call(b"ok", timeout=10)
            assert (await answer if self._is_aio else answer) == b"0"
        closing = channel.close()
        if closing is not None:
            await closing
        await settle(20)
        return [
            type(channel).__name__,
            len(self._exporter.get_finished_spans()),
            *(tracer.end() for tracer in self._tracers),
        ]


traced_program.Traced = TracedByMore  # type: ignore[misc]


if __name__ == "__main__":
    traced_program.main()
