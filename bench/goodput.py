"""Calls completed by threads under load: a pool against channels with threads distributed by hand (`_goodput.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import grpc

import grpcpool
from _common import isolated_channel
from _goodput import MEASURED, ROUNDS, report
from grpcpool._demo.calls import CONFIG, CONNECTIONS, WORKERS
from grpcpool._demo.process import running_server
from grpcpool._demo.tally import Tally
from grpcpool._demo.threads import call_on


def load(channels: Sequence[grpc.Channel]) -> Tally:
    """Makes calls for a while in threads, distributed over `channels`."""
    tally = Tally(MEASURED)
    call_on(channels, WORKERS, tally)
    return tally


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
    report(pairs)


if __name__ == "__main__":
    main()
