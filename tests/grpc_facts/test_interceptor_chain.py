"""Interceptors of asyncio pools and leases run although gRPC's own way to run them is not as known."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
import pytest

from aio_calls.support import crowded, world
from aio_calls.support_interceptors import (
    Counting,
    answers,
    answers_with_a_stream,
    awaits,
    goes_on_twice,
    intercepted,
    passes,
    raises,
    raises_status,
    wraps_responses,
)
from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool._grpc import interceptor_chain
from grpcpool._grpc.own_chain import OWN_CHAINS, OwnCall
from support.aio_pools import at_rest
from support.aio_ways import END_UNREAD, KINDS, STREAM, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until

pytestmark = pytest.mark.timeout(120)

_MODULE = "grpc.aio._interceptor"
_IMPORT = r"\bfrom \._interceptor import\b"
_WITH = "from ._chain import"
_STREAMS_IN = tuple(way for way in WAYS if way.writes)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (_MODULE, Changed({_IMPORT: _WITH}, {"grpc.aio._chain": _MODULE})),
        (_MODULE, renamed("InterceptedStreamUnaryCall")),
        # A parameter more, in between.
        (
            _MODULE,
            Changed(
                {r"(UnaryUnaryClientInterceptor\],\n)( +request: RequestType,\n +timeout)": r"\1        hue: int,\n\2"}
            ),
        ),
        ("_proxy_writes_as_request_iterator", renamed("_proxy_writes_as_request_iterator")),
        ("_write_to_iterator_queue", renamed("_write_to_iterator_queue")),
        ("_write_to_iterator_queue_interruptible", renamed("_write_to_iterator_queue_interruptible")),
        ("_status_code_task", renamed("_status_code_task")),
        ("_FINISH_ITERATOR_SENTINEL", renamed("_FINISH_ITERATOR_SENTINEL")),
        ("_interceptors_task", renamed("_interceptors_task")),
        ("_done_writing_flag", renamed("_done_writing_flag")),
    ],
    ids=["module", "class", "parameter", "proxy", "queue", "write", "end", "sentinel", "task", "flag"],
)
def test_without_grpcs_classes(calls: CallServer, name: str, changed: Changed) -> None:
    """`grpcpool.aio` can be imported, every way to call goes through the interceptors, and a warning names the name."""
    ended = changed.run("intercepted", calls.target)
    assert ended.result == ["grpcpool._grpc.own_chain"]
    assert ended.warned_of(name)


def test_with_grpcs_classes(calls: CallServer) -> None:
    """With gRPC as it is the calls are of its own classes, and nothing is warned of."""
    ended = UNCHANGED.run("intercepted", calls.target)
    assert set(ended.result) <= {_MODULE, "grpcpool._grpc.interceptor_chain"}
    assert ended.warnings == []


@pytest.fixture
def _own_chain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pool runs interceptors itself."""
    monkeypatch.setattr(interceptor_chain, "_chains", lambda: OWN_CHAINS)
    yield
    gc.collect()


own_chain = pytest.mark.usefixtures("_own_chain")


@own_chain
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_whole(calls: CallServer, way: Way) -> None:
    """Each way to call goes through two interceptors, in order, and ends well; with room and without."""
    outer, inner = Counting("outer"), Counting("inner")
    async with world(calls) as at:
        pool = await intercepted(at, "argument", outer, inner)
        for _ in range(2):
            call = way.begin(pool)
            assert isinstance(call, OwnCall)
            assert await way.use(call)
            assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
            assert await call.code() is grpc.StatusCode.OK
            assert await call.details() == ""
            assert tuple(await call.initial_metadata()) == (("initial", "yes"),)
            assert tuple(await call.trailing_metadata()) == (("trailing", "yes"),)
        async with crowded(pool):
            assert await way.whole(pool)
        assert outer.methods == inner.methods == [way.method] * 3
        await at_rest(pool)


@own_chain
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_failing(calls: CallServer, way: Way) -> None:
    """What the server fails with, and what an interceptor raises, reaches the caller as without the pool's chain."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", passes)
        call = way.begin(pool, "fail")
        assert await outcome_of(way.use(call, "fail")) == ("error", grpc.StatusCode.PERMISSION_DENIED, "not you")
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        pool = await intercepted(at, "argument", raises)
        call = way.begin(pool)
        assert (await outcome_of(way.take(call)))[0] is ArithmeticError
        assert call.done()
        pool = await intercepted(at, "argument", raises_status)
        call = way.begin(pool)
        assert (await outcome_of(way.take(call)))[1] is grpc.StatusCode.FAILED_PRECONDITION
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await call.details() == "as the test wants"
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        await at_rest(pool)


@own_chain
@in_loop
async def test_answering(calls: CallServer) -> None:
    """An interceptor may answer itself, with a response or with a stream of them, and may go on twice."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", passes, answers)
        call = UNARY.begin(pool)
        assert await call == b"answered"
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()
        pool = await intercepted(at, "argument", passes, answers_with_a_stream)
        assert await STREAM.whole(pool) == [b"a", b"b"]
        pool = await intercepted(at, "argument", passes, wraps_responses)
        call = STREAM.begin(pool)
        assert await STREAM.take(call) == [b"0", b"1", b"2"]
        assert await call.code() is grpc.StatusCode.OK
        assert call.time_remaining() is not None
        pool = await intercepted(at, "argument", awaits, goes_on_twice)
        assert await UNARY.whole(pool, "fail") == b"0"
        await at_rest(pool)


@own_chain
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_cancelling(calls: CallServer, way: Way) -> None:
    """A call is cancelled while an interceptor holds it, while it waits, and while it runs."""

    async def sleeps(go_on: Any, details: Any, request: Any) -> Any:
        await asyncio.sleep(30)

    async with world(calls) as at:
        pool = await intercepted(at, "argument", sleeps)
        call = way.begin(pool)
        ended: list[Any] = []
        call.add_done_callback(ended.append)
        await settle()
        assert not call.done()
        assert call.cancel()
        assert await outcome_of(way.take(call)) == ("cancelled",)
        assert (call.done(), call.cancelled(), call.cancel()) == (True, True, False)
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert ended == [call]
        pool = await intercepted(at, "argument", passes)
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        await at.until_held(tag)
        call.add_done_callback(ended.append)
        assert call.cancel()
        await until(lambda: len(ended) == 2)
        assert call.cancelled()
        await at.until_let_go(tag)
        await at_rest(pool)


@own_chain
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_dropping(calls: CallServer, way: Way) -> None:
    """A stream of responses that is dropped is cancelled. A call with one response goes on until it is answered."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", passes)
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        await at.until_held(tag)
        del call
        gc.collect()
        if way.ends_unread:
            assert tag in await at.tell("held")
            await at.let_go(tag)
        await at.until_let_go(tag)
        await at_rest(pool)


@own_chain
@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_dropped_at_once(calls: CallServer, way: Way) -> None:
    """A call with one response that nothing holds is made, and ends by itself."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", passes)
        tag = new_tag()
        way.begin(pool, f"note:{tag}")
        while tag not in await at.tell("notes"):  # noqa: ASYNC110 -- the server is asked
            await asyncio.sleep(0.002)
        await at_rest(pool)


@own_chain
@pytest.mark.parametrize("way", _STREAMS_IN, ids=str)
@in_loop
async def test_writing(calls: CallServer, way: Way) -> None:
    """What is written arrives in order; nothing is written after the end, of the writes or of the call."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", passes)
        call = way.begin(pool)
        await call.wait_for_connection()
        await call.write(b"ok")
        await call.done_writing()
        await call.done_writing()
        assert await way.take(call)
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"ok")
        call = way.begin(pool, "hold:written")
        await call.write(b"hold:written")
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError, match="half closed"):
            await call.write(b"more")
        call.cancel()
        if way.streams_out:
            # It ends while it is written to.
            call = way.begin(pool, "fail")
            with pytest.raises(asyncio.InvalidStateError):
                await _write_on(call)
            # The latter if gRPC had begun to write.
            assert await call.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL)
        iterated = Way(way.maker, way.method, "iterator", way.takes).begin(pool)
        with pytest.raises(grpc.aio.UsageError):
            await iterated.write(b"ok")
        with pytest.raises(grpc.aio.UsageError):
            await iterated.done_writing()
        assert await way.take(iterated)
        await at_rest(pool)


async def _write_on(call: Any) -> NoReturn:
    while True:
        await call.write(b"fail")
        await asyncio.sleep(0)


@pytest.mark.long
def test_it_passes_the_tests_of_interceptors() -> None:
    """The pool's own way to run interceptors passes the tests that gRPC's way passes."""
    tests = pathlib.Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "long or not long", "-p", "grpc_facts.own_chain"]
    folder = tests / "aio_calls"
    done = subprocess.run(  # noqa: S603 -- our own tests
        [*command, str(folder / "test_interceptors.py"), str(folder / "test_interceptors_ends.py")],
        cwd=tests.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
