"""What the pool adds to a call: the client's CPU time, a pool of one connection against a bare channel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from _common import COUNT, ECHO, Block, compare, fast_server, isolated_channel, open_pool, report

_TIMES = 40
_ROUNDS = 150
_THREADS = 8
_MESSAGES = 10
_BOUND_UNARY, _BOUND_STREAM = 1.03, 1.03


def sequential(channel: grpc.Channel) -> Block:
    """A block of unary calls, one after the other."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)

    def block() -> None:
        for _ in range(_TIMES):
            call(b"request")

    return block


def threaded(channel: grpc.Channel, threads: ThreadPoolExecutor) -> Block:
    """The same number of unary calls, divided among threads."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)

    def share(_: int) -> None:
        for _ in range(_TIMES // _THREADS):
            call(b"request")

    return lambda: list(threads.map(share, range(_THREADS)))


def streams(channel: grpc.Channel) -> Block:
    """A block of streams, each read to its end."""
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(COUNT)

    def block() -> None:
        for _ in range(_TIMES):
            for _message in call(bytes(_MESSAGES)):
                pass

    return block


def main() -> None:
    """Measures and reports."""
    with (
        fast_server() as target,
        isolated_channel(target) as bare,
        open_pool(target, 1) as pool,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        measured = {
            "unary, one thread": compare(sequential(bare), sequential(pool), rounds=_ROUNDS),
            f"unary, {_THREADS} threads": compare(threaded(bare, threads), threaded(pool, threads), rounds=_ROUNDS),
            f"stream of {_MESSAGES} messages": compare(streams(bare), streams(pool), rounds=_ROUNDS),
        }
    bounds = [_BOUND_UNARY, _BOUND_UNARY, _BOUND_STREAM]
    report("CPU time a call", measured, panel="calls", per=_TIMES, base="channel", ours="pool", bounds=bounds)


if __name__ == "__main__":
    main()
