"""Calls completed by threads under load: a pool against channels with threads distributed by hand (`_goodput.py`)."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence

import grpc

import grpcpool
from _common import isolated_channel
from _goodput import CALL_TIMEOUT, CONFIG, CONNECTIONS, ROUNDS, WORKERS, CallCounter, report
from grpcpool._demo.process import running_server
from grpcpool._demo.server import METHOD

_Call = grpc.UnaryUnaryMultiCallable


def load(channels: Sequence[grpc.Channel]) -> CallCounter:
    """Makes calls for a while in threads, distributed over `channels`."""
    counter = CallCounter()
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]
    workers = itertools.islice(itertools.cycle(calls), WORKERS)
    threads = [threading.Thread(target=_keep_calling, args=(call, counter), daemon=True) for call in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counter


def _keep_calling(call: _Call[bytes, bytes], counter: CallCounter) -> None:
    while counter.running():
        with counter.call():
            call(b"", timeout=CALL_TIMEOUT)


def main() -> None:
    """Measures and reports."""
    with running_server() as port, contextlib.ExitStack() as stack:
        target = f"127.0.0.1:{port}"
        pool = stack.enter_context(grpcpool.ChannelPool(lambda: isolated_channel(target), CONFIG))
        channels = [stack.enter_context(isolated_channel(target)) for _ in range(CONNECTIONS)]
        pairs = []
        for number in range(ROUNDS):
            if number % 2:
                dealt = load(channels)
                pairs.append((load([pool]), dealt))
            else:
                pairs.append((load([pool]), load(channels)))
    report(pairs, callers="threads")


if __name__ == "__main__":
    main()
