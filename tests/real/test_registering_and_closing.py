"""gRPC crashes when a method is registered with a closed channel, which pools rule out. Each test is a program."""

from __future__ import annotations

import textwrap

import pytest

from grpcpool._grpc.version import GRPC_RELEASE
from support.programs import run_python
from support.servers import Server

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(GRPC_RELEASE < (1, 63), reason="gRPC registers no methods"),
]

_PRELUDE = """
import asyncio, sys, threading
import grpc
import grpcpool, grpcpool.aio
from support.servers import ECHO
from support.waiting import eventually

target = sys.argv[1]
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def make(channel, kind):
    return getattr(channel, kind)(ECHO, _registered_method=True)


def begin(channel, kind):
    request = iter([b"x"]) if kind.startswith("stream") else b"x"
    multicallable = make(channel, kind)
    return multicallable(request, timeout=20) if kind.endswith("stream") else multicallable.future(request, timeout=20)


def outcome(work):
    try:
        return repr(work())
    except (ValueError, grpc.RpcError, grpc.aio.UsageError, grpc.FutureCancelledError) as error:
        return type(error).__name__ + ": " + str(error)


class Gate(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor,
):
    '''Holds calls in the interceptor of a channel until they are let through.'''

    def __init__(self):
        self.inside, self.opened, self.may_connect = threading.Semaphore(0), threading.Event(), threading.Event()

    def hold(self, continuation, details, request):
        self.inside.release()
        self.opened.wait(30)
        return continuation(details, request)

    intercept_unary_unary = intercept_unary_stream = hold
    intercept_stream_unary = intercept_stream_stream = hold


def gated_pool():
    gate = Gate()

    def factory():
        gate.may_connect.wait(30)
        return grpc.intercept_channel(grpc.insecure_channel(target), gate)

    return gate, grpcpool.ChannelPool(factory, config=grpcpool.PoolConfig(min_size=1, max_size=1))


def in_thread(work):
    result = []
    thread = threading.Thread(target=lambda: result.append(outcome(work)))
    thread.start()
    return thread, result
"""


def _run(server: Server, program: str) -> list[str]:
    """Runs a program in an interpreter of its own, which must end with code 0; returns the lines that it printed."""
    return run_python(_PRELUDE + textwrap.dedent(program), server.target, options=("-W", "ignore")).stdout.splitlines()


def test_a_lease_used_first_after_the_pool_was_closed(server: Server) -> None:
    """As on a plain channel that was closed, a call on it raises `ValueError` with gRPC's text."""
    lines = _run(
        server,
        """
        pool = grpcpool.insecure_channel(target)
        lease = pool.acquire(timeout=20)
        pool.close()
        print(outcome(lambda: make(lease, "unary_unary")(b"x")))
        for kind in KINDS:
            print(outcome(lambda: begin(lease, kind)))
        """,
    )
    assert lines == ["ValueError: Cannot invoke RPC on closed channel!"] + 4 * [
        "ValueError: Cannot invoke RPC: Channel closed!"
    ]


def test_calls_that_waited_start_on_a_closed_channel(server: Server) -> None:
    """Calls that get their place when the pool closes end, whatever their kind."""
    lines = _run(
        server,
        """
        for kind in KINDS:
            gate, pool = gated_pool()
            waiting = [begin(pool, kind) for _ in range(3)]
            gate.may_connect.set()
            gate.inside.acquire(timeout=20)
            closing, _ = in_thread(pool.close)
            eventually(lambda: pool.stats().size == 0)
            gate.opened.set()
            closing.join(30)
            print(kind, *(call.code().name for call in waiting))
        """,
    )
    assert [line.split()[0] for line in lines] == ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
    # `INTERNAL` is what gRPC makes of an error that passes an interceptor; one call may be just in time.
    assert {code for line in lines for code in line.split()[1:]} <= {"CANCELLED", "INTERNAL", "OK"}


def test_calls_inside_interceptors_of_a_closed_channel(server: Server) -> None:
    """An interceptor of the factory's channel makes a multicallable at each call; it may do so after the close."""
    lines = _run(
        server,
        """
        for kind in KINDS:
            gate, pool = gated_pool()
            gate.may_connect.set()
            pool.open(timeout=20)
            calling, results = in_thread(lambda: begin(pool, kind).result())
            gate.inside.acquire(timeout=20)
            pool.close()
            gate.opened.set()
            calling.join(30)
            print(*results)
        """,
    )
    assert len(lines) == 4
    assert all(line.startswith("ValueError: Cannot invoke RPC") for line in lines), lines


def test_a_call_that_is_sent_again_on_a_closed_channel(server: Server) -> None:
    """A call that was refused makes a multicallable of its own for each attempt; that is as safe."""
    lines = _run(
        server,
        """
        pool = grpcpool.insecure_channel(target, config=grpcpool.PoolConfig(min_size=1))
        pool.open(timeout=20)
        (slot,) = pool._driver.machine.fleet.slots
        method = pool._driver.methods.get("unary_unary", (ECHO, None, None, True))
        pool.close()
        again = slot.channel.make(method.with_sent((b"x", b"x")))
        print(outcome(lambda: again(b"x")))
        """,
    )
    assert lines == ["ValueError: Cannot invoke RPC on closed channel!"]


def test_the_factorys_owner_closes_its_channel(server: Server) -> None:
    """A channel that its owner closes is as safe, also by leaving its `with` block."""
    lines = _run(
        server,
        """
        for close in (lambda channel: channel.close(), lambda channel: channel.__exit__(None, None, None)):
            channel = grpc.insecure_channel(target)
            pool = grpcpool.ChannelPool(lambda: grpc.intercept_channel(channel))
            pool.open(timeout=20)
            close(channel)
            print(outcome(lambda: make(pool, "unary_unary")(b"x")))
            print(outcome(lambda: make(channel, "unary_unary")(b"x")))
            pool.close()
        """,
    )
    assert len(lines) == 4
    assert set(lines) == {"ValueError: Cannot invoke RPC on closed channel!"}


def test_many_threads_register_while_the_channel_is_closed(server: Server) -> None:
    """Whenever the close comes, each thread gets an answer or gRPC's error."""
    lines = _run(
        server,
        """
        for _ in range(30):
            pool = grpcpool.insecure_channel(target, config=grpcpool.PoolConfig(min_size=1, max_size=1))
            with pool.acquire(timeout=20, streams=1) as lease:
                started = threading.Barrier(5)

                def register(number):
                    started.wait()
                    for at in range(50):
                        lease.unary_unary(f"/a/{number}.{at}", _registered_method=True)

                threads = [in_thread(lambda n=n: register(n)) for n in range(4)]
                started.wait()
                pool.close()
                for thread, _ in threads:
                    thread.join(30)
        print("alive")
        """,
    )
    assert lines == ["alive"]


def test_a_signal_handler_closes_while_a_method_is_registered(server: Server) -> None:
    """The close waits until the method is registered, although both run on one thread."""
    lines = _run(
        server,
        """
        channel = grpc.insecure_channel(target)
        pool = grpcpool.ChannelPool(lambda: channel)
        pool.open(timeout=20)
        for event in ("call", "line"):
            guard = channel._close.__self__

            def interrupt(frame, what, _argument):
                # As a signal handler would, just before gRPC's own code.
                if frame.f_code.co_name == "encode":
                    sys.settrace(None)
                    channel.close()
                return interrupt

            sys.settrace(interrupt)
            print(outcome(lambda: make(channel, "unary_unary")(b"x")))
            sys.settrace(None)
        pool.close()
        """,
    )
    assert lines == 2 * ["ValueError: Cannot invoke RPC on closed channel!"]


@pytest.mark.parametrize("how", ["lease", "pool"])
def test_on_asyncio(server: Server, how: str) -> None:
    """As on a plain channel that was closed, a call raises gRPC's `UsageError`."""
    lines = _run(
        server,
        f"""
        how = {how!r}

        async def main():
            for kind in KINDS:
                pool = grpcpool.aio.insecure_channel(target)
                lease = await pool.acquire(timeout=20)
                used = lease if how == "lease" else pool
                await pool.close()
                try:
                    multicallable = make(used, kind)
                    call = multicallable(iter([b"x"])) if kind.startswith("stream") else multicallable(b"x")
                    print(await (call.read() if kind.endswith("stream") else call))
                except BaseException as error:
                    print(type(error).__name__, error)

        asyncio.run(main())
        """,
    )
    assert len(lines) == 4
    assert {line.split()[0] for line in lines} == {"UsageError"}
