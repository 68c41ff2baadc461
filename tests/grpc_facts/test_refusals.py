"""A call that the server may have processed is never sent again, also where that is not known."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool._grpc.call_errors import has_answered, has_answered_in_the_end
from grpcpool._grpc.status import is_refused_stream, says_refused
from grpcpool.testing import FakeChannel, aio, error
from support.pools import PoolMaker
from support.refusing_server import RefusingServer
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(120)

_WORDS = "Received RST_STREAM with error code 7"
_SERVICE = "/refusals.Test"
_MANY = 30
# Seconds; five times as long, the usual value, would only make the tests slower.
_SLOW = 0.001
_WAYS = ("call", "with_call", "future", "stream")
_STATE_RENAMED = renamed("_state")


@pytest.mark.parametrize("command", [f"answered:{_WORDS}", "answered_reset:7"])
@pytest.mark.parametrize("changed", [UNCHANGED, _STATE_RENAMED], ids=["as it is", "renamed"])
def test_an_answered_call_is_not_sent_again(refusing: RefusingServer, changed: Changed, command: str) -> None:
    """A server that sends metadata, and then fails in the words of a refusal, gets each call once."""
    ended = changed.run("failing", refusing.target, command, _SERVICE)
    assert ended.result == [dict.fromkeys(_WAYS, "UNAVAILABLE"), 0]
    assert refusing.report().handled == {command: len(_WAYS)}


def test_a_refused_call_is_sent_again(refusing: RefusingServer) -> None:
    """What the server refused, and has not answered, is sent again in each way."""
    refusing.begin(next=1)
    ended = UNCHANGED.run("failing", refusing.target, "ok", _SERVICE)
    assert ended.result == [dict.fromkeys(_WAYS, "OK"), 1]
    assert ended.warnings == []


def test_a_refused_call_without_the_name(refusing: RefusingServer) -> None:
    """Without `_state` blocking calls are sent again, by what is public; others fail, once, and the pool says so."""
    refusing.begin(next=1)
    ended = _STATE_RENAMED.run("failing", refusing.target, "ok", _SERVICE)
    assert ended.result == [dict.fromkeys(_WAYS, "OK"), 1]
    for way in ("future", "stream"):
        refusing.begin(next=1)
        ended = _STATE_RENAMED.run("failing_one", refusing.target, "ok", _SERVICE, way)
        assert ended.result == ["UNAVAILABLE", 0]
        assert ended.warned_of("_state")
        assert refusing.report().all.begun == 1


def test_a_stream_whose_metadata_is_late(refusing: RefusingServer) -> None:
    """While gRPC has yet to see if a stream was answered, it is neither sent again nor over."""
    ended = UNCHANGED.run("late_metadata", refusing.target, "answered_reset:7", _SERVICE)
    assert ended.result == [0, "UNAVAILABLE"]
    assert refusing.report().handled == {"answered_reset:7": 1}
    refusing.begin(next=1)
    assert UNCHANGED.run("late_metadata", refusing.target, "ok", _SERVICE).result == [3, "OK"]
    assert refusing.report().handled == {"ok": 1}


@pytest.fixture
def _busy() -> Iterator[None]:
    """Another thread is busy, so that gRPC's are slow: each time they have to wait for longer than for the server."""
    over = threading.Event()
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SLOW)

    def work() -> None:
        while not over.is_set():
            pass

    worker = threading.Thread(target=work)
    worker.start()
    yield
    over.set()
    worker.join()
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_busy")
def test_a_stream_that_was_answered_and_reset_at_once(refusing: RefusingServer, make_pool: PoolMaker) -> None:
    """Whether gRPC first takes note of the metadata or of the end, the server gets the call once."""
    pool = make_pool(refusing.channel, min_size=2, max_size=2)
    pool.open()
    stream: Any = pool.unary_stream(f"{_SERVICE}/Us")
    for _ in range(_MANY):
        with pytest.raises(grpc.RpcError, match="error code 7"):
            list(stream(b"answered_reset:7", timeout=LONG))
    assert refusing.report().handled == {"answered_reset:7": _MANY}
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.usefixtures("_busy")
def test_a_stream_that_was_refused_is_sent_again(refusing: RefusingServer, make_pool: PoolMaker) -> None:
    """And a stream that was refused is sent again, each time."""
    # A connection that has refused a stream is avoided for a while: there are enough others.
    pool = make_pool(refusing.channel, min_size=_MANY + 1, max_size=_MANY + 1)
    pool.open()
    stream: Any = pool.unary_stream(f"{_SERVICE}/Us")
    for _ in range(_MANY):
        refusing.refuse(next=1)
        assert list(stream(b"ok", timeout=LONG)) == [b"0", b"1", b"2"]
    assert refusing.report().handled == {"ok": _MANY}
    assert pool.stats().refused_streams == _MANY


def test_callbacks_of_an_answered_stream(refusing: RefusingServer, make_pool: PoolMaker) -> None:
    """The done-callback of such a stream is called, once, when the call is over."""
    pool = make_pool(refusing.channel, min_size=2, max_size=2)
    pool.open()
    stream: Any = pool.unary_stream(f"{_SERVICE}/Us")
    ended: list[Any] = []
    calls = [stream(b"answered_reset:7", timeout=LONG) for _ in range(20)]
    for call in calls:
        call.add_done_callback(ended.append)
    eventually(lambda: len(ended) == len(calls))
    assert {call.code() for call in ended} == {grpc.StatusCode.UNAVAILABLE}
    assert sorted(map(id, ended)) == sorted(map(id, calls))
    assert refusing.report().handled == {"answered_reset:7": len(calls)}


@pytest.mark.parametrize("kind", ["future", "stream"])
def test_metadata_is_known_in_the_end(refusing: RefusingServer, kind: str) -> None:
    """That there was initial metadata is known soon after the end, though both come in one packet."""
    with refusing.channel() as channel:
        unary: Any = channel.unary_unary(f"{_SERVICE}/Uu")
        stream: Any = channel.unary_stream(f"{_SERVICE}/Us")
        for _ in range(100):
            ended = threading.Event()
            known: list[bool | None] = []
            begin = unary.future if kind == "future" else stream
            call = begin(b"answered_reset:7", timeout=20)

            def note(call: Any = call, ended: threading.Event = ended, known: list[Any] = known) -> None:
                known.append(has_answered(call))
                ended.set()

            if not call.add_callback(note):
                note()
            assert ended.wait(20)
            assert known in ([True], [None])
            assert has_answered_in_the_end(call) is True


class _Status(grpc.RpcError):
    """An error as an interceptor may raise it."""

    def code(self) -> grpc.StatusCode:
        """The code of a refusal."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """The words of a refusal."""
        return _WORDS

    def trailing_metadata(self) -> tuple[()]:
        """None."""
        return ()


def test_what_is_unknown_is_not_refused() -> None:
    """An error that does not show whether the server has answered is not taken for a refusal, whatever its words."""
    assert has_answered(_Status()) is None
    assert not is_refused_stream(_Status())
    unavailable = grpc.StatusCode.UNAVAILABLE
    empty = grpc.aio.Metadata()
    assert is_refused_stream(grpc.aio.AioRpcError(unavailable, empty, empty, _WORDS))
    unknown: Any = None
    for initial, trailing in ((unknown, empty), (empty, unknown), (grpc.aio.Metadata(("a", "b")), empty)):
        assert not is_refused_stream(grpc.aio.AioRpcError(unavailable, initial, trailing, _WORDS))
    assert says_refused(unavailable, _WORDS, (), ())
    assert not says_refused(unavailable, _WORDS, None, ())


def test_fakes_have_what_real_calls_have() -> None:
    """A fake's error in the words of a refusal is one, as gRPC's is, in both worlds."""
    assert is_refused_stream(error(grpc.StatusCode.UNAVAILABLE, _WORDS))
    assert is_refused_stream(aio.error(grpc.StatusCode.UNAVAILABLE, _WORDS))
    assert not is_refused_stream(error(grpc.StatusCode.INTERNAL, _WORDS))
    channel = FakeChannel(holds_calls=True)
    call: Any = channel.unary_stream("/a/b")(b"")
    call.fail(grpc.StatusCode.UNAVAILABLE, _WORDS)
    assert has_answered(call) is False
    assert is_refused_stream(call)
