"""Several targets in an order of preference, with real servers, in simulated time: the return is what counts."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import PoolConfig
from grpcpool.testing import manual_clock
from resilience.worlds import World
from support.servers import PID, RECONNECT_SOON, Server
from support.waiting import background, eventually

pytestmark = pytest.mark.timeout(60)


def test_the_return() -> None:
    """Calls go to the spare server while the main one is down, and return once that has been up for long enough."""
    with Server() as main, Server() as spare, manual_clock() as clock:

        def answered_by() -> int | None:
            try:
                return int(pool.unary_unary(PID)(b"", timeout=5))
            except grpc.RpcError:
                return None

        def is_refused() -> bool:
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE") as failed:
                pool.unary_unary(PID)(b"", timeout=5)
            return "Connection refused" in str(failed.value)

        with grpcpool.insecure_channel([main.target, spare.target], RECONNECT_SOON) as pool:
            assert pool.target == pool.name == f"{main.target},{spare.target}"
            assert answered_by() == main.pid
            main.kill()
            # A call that gRPC refuses shows that it has noticed: from here on no check finds the connection up.
            eventually(lambda: is_refused() and pool.stats().ready == 0)
            for _ in range(22):
                clock.advance(0.5)
            eventually(lambda: answered_by() == spare.pid)
            main.restart()
            ran_at = answered_by()
            for _ in range(200):
                clock.advance(0.5)
                ran_at = answered_by()
                assert ran_at is not None, "a call failed although a server was up"
                if ran_at == main.pid:
                    break
            assert ran_at == main.pid
            # Its connection is kept for a while.
            assert pool.stats().draining == 1
            clock.advance(901.0)
            eventually(lambda: [channel.state for channel in pool.stats().channels] == ["ready"])
            assert answered_by() == main.pid


def test_open_uses_the_next(world: World) -> None:
    """`open()` succeeds on the spare server if the main one stays down for 10 seconds, and fails at its timeout."""
    with Server() as main, Server() as spare, manual_clock() as clock:
        main.kill()
        order: Any = [main.target, spare.target]
        with world.pool(order, connect_timeout=60.0) as subject:

            def goes_on(opening: Future[None]) -> bool:
                clock.advance(0.25)
                return opening.done()

            began = clock.monotonic()
            opening = background(lambda: subject.open(timeout=5.0))
            eventually(lambda: goes_on(opening))
            with pytest.raises(grpcpool.PoolOpenError, match="Failed to connect"):
                opening.result()
            assert clock.monotonic() - began < 10.0
            assert subject.stats().size == 0
            opening = background(lambda: subject.open(timeout=600.0))
            eventually(lambda: goes_on(opening))
            opening.result()
            assert subject.call(PID, b"") == str(spare.pid).encode()


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ([], "must be different targets, at least one"),
        (["a:1", "a:1"], "must be different targets"),
        (["a:1", ""], "none of them empty"),
        (["a:1", b""], "none of them empty"),
    ],
)
def test_what_is_no_order(target: list[str], match: str) -> None:
    """No target at all, or the same twice, is refused at once."""
    with pytest.raises(ValueError, match=match):
        grpcpool.insecure_channel(target)
    with pytest.raises(ValueError, match=match):
        grpcpool.aio.insecure_channel(target)


def test_what_is_not_a_target() -> None:
    """As for gRPC, a target is text."""
    with pytest.raises(TypeError, match="target must be a str"):
        grpcpool.insecure_channel(["a:1", 2])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="has no effect with several targets"):
        grpcpool.insecure_channel(["a:1", "b:1"], addresses=lambda: ["a:1"])


def test_one_in_a_list(server: Server) -> None:
    """A list of one is that one."""
    with grpcpool.insecure_channel([server.target], config=PoolConfig(min_size=2)) as pool:
        pool.open()
        assert pool.target == server.target
