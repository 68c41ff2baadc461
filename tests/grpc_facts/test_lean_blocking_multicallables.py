"""Pools spare their blocking calls some of what gRPC does for each; where its code is other code, they do not."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import wrapt
from grpc._observability import ObservabilityPlugin, observability_deinit, observability_init

from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool._grpc.failed_streams import reader_of
from grpcpool._grpc.lean_blocking_multicallables import (
    _flags,
    _lean_observability,
    _lean_waits,
    _module_like,
    make_lean,
    read_of,
)
from grpcpool._grpc.unbroken_locks import _CallLock, _Condition, call_lock_like
from support import call_server
from support.call_server import CallServer
from support.waiting import eventually
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(120)

_NAMES = ["_RPCState", "_InitialMetadataFlags", "with_wait_for_ready", "_prepare", "_handle_event", "_event_handler"]
_NAMES += ["maybe_record_rpc_latency", "_OBSERVABILITY_PLUGIN", "_MultiThreadedRendezvous", "_wait_once"]
_CHANGES = {
    "as it is": UNCHANGED,
    **{name: renamed(name) for name in _NAMES},
    "_observability": Changed({r"\b_observability\.maybe": "__import__('grpc')._observability.maybe"}),
    "get_plugin": Changed(
        {r"\bdef set_plugin": "other = get_plugin\n\ndef set_plugin", r"with get_plugin\(": "with other("}
    ),
    "_common.wait": Changed({r"\b_common\.wait\b": "__import__('grpc')._common.wait"}),
    "wait": Changed({r"\bdef wait\(": "def waits(", r"_common\.wait\(": "_common.waits("}),
    "another condition": Changed({r"= threading\.Condition\(\)": "= __import__('threading').Condition()"}),
    "other flags": Changed({r"(def with_wait_for_ready)": r"def other(self): ...\n\n    \1"}),
}


@pytest.fixture
def channel(calls: CallServer) -> Iterator[grpc.Channel]:
    """One of gRPC's own."""
    with grpc.insecure_channel(calls.target) as channel:
        yield channel


@pytest.fixture
def unary(channel: grpc.Channel) -> Any:
    """A lean multicallable."""
    multicallable: Any = channel.unary_unary(call_server.UU)
    make_lean(multicallable)
    return multicallable


@pytest.mark.parametrize("changed", _CHANGES.values(), ids=_CHANGES)
def test_with_other_code(calls: CallServer, changed: Changed) -> None:
    """Calls of all kinds work, without a warning."""
    assert changed.run("calls", calls.target).warnings == []
    assert changed.run("errors", calls.target).warnings == []


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_lean_multicallable_makes_the_same_calls(channel: grpc.Channel, way: Way) -> None:
    """Its answers and their classes are gRPC's, its locks are the pool's."""
    plain = way.finish(way.begin(channel))

    class Lean:
        def __getattr__(self, name: str) -> Any:
            def make(*arguments: Any, **named: Any) -> Any:
                multicallable = getattr(channel, name)(*arguments, **named)
                own = type(multicallable)
                make_lean(multicallable)
                assert type(multicallable) is not own
                assert isinstance(multicallable, own)
                assert repr(type(multicallable)) == repr(own)
                return multicallable

            return make

    lean: Any = Lean()
    call = way.begin(lean)
    lock = getattr(getattr(call, "_state", None), "condition", None)
    assert lock is None or type(lock) is _CallLock
    ours = way.finish(call)
    if way.how == "with_call":
        assert (ours[0], type(ours[1]), ours[1].code()) == (plain[0], type(plain[1]), plain[1].code())
    else:
        assert ours == plain


@pytest.mark.usefixtures("channel")  # By which gRPC imports its module.
def test_the_flags_of_calls() -> None:
    """They are gRPC's, whatever the argument is."""
    own: Any = sys.modules["grpc._channel"]._InitialMetadataFlags
    make = _flags(own)
    for waits in (None, False, True, 0, 1, "", "yes", 0.5):
        assert make().with_wait_for_ready(waits) == own().with_wait_for_ready(waits)
    assert make() == own()


def test_a_call_that_waits(unary: Any) -> None:
    """It and one that does not are answered."""
    assert [unary(b"ok", wait_for_ready=waits, timeout=60) for waits in (True, False)] == [b"0", b"0"]


class _Plugin(ObservabilityPlugin[Any, Any]):
    """Records how calls ended, and nothing else."""

    observability_enabled = False
    stats_enabled = True

    def __init__(self) -> None:
        self.recorded: list[tuple[str, grpc.StatusCode]] = []

    def record_rpc_latency(self, method: str, *more: Any) -> None:
        *_target, milliseconds, code = more
        assert 0 < milliseconds < 60_000
        self.recorded.append((method, code))


# The rest of it depends on gRPC's release, and is not called.
_Plugin.__abstractmethods__ = frozenset()


@pytest.fixture
def plugin() -> Iterator[_Plugin]:
    """What gRPC's own observability registers, after a pool has made calls without it."""
    make: Any = _Plugin
    yield make()
    observability_deinit()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_latency_of_calls_is_recorded(make_pool: Any, calls: CallServer, plugin: _Plugin, way: Way) -> None:
    """From when gRPC's plugin is registered until it is gone, also of calls that fail."""
    pool = make_pool(lambda: grpc.insecure_channel(calls.target), max_size=1)
    way.finish(way.begin(pool))
    observability_init(plugin)
    way.finish(way.begin(pool))
    with pytest.raises(grpc.RpcError):
        way.finish(way.begin(pool, "fail"))
    observability_deinit()
    way.finish(way.begin(pool))
    codes = [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED]
    assert plugin.recorded == [(way.method, code) for code in codes]


def test_who_observes_calls_is_asked_as_grpc_asks() -> None:
    """If gRPC's code for that is other code, it is run."""
    own = sys.modules["grpc._observability"]
    assert _lean_observability(own)
    for changed in ({"get_plugin": contextlib.nullcontext}, {"maybe_record_rpc_latency": print}):
        assert not _lean_observability(_module_like(own, **changed))
    records: Any = _module_like(own, maybe_record_rpc_latency=lambda state: state.records())
    assert not _lean_observability(records)
    assert not _lean_observability(None)


def test_what_a_tracer_puts_in_the_place_of_grpcs_code(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run, also if a pool has made calls before."""
    kind: Any = type(channel.unary_stream(call_server.US))
    own = kind.__call__
    traced = []

    @functools.wraps(own)
    def traces(self: Any, *arguments: Any, **named: Any) -> Any:
        traced.append(self)
        return own(self, *arguments, **named)

    for expected in (0, 1):
        stream: Any = channel.unary_stream(call_server.US)
        make_lean(stream)
        assert list(stream(b"ok")) == [b"0", b"1", b"2"]
        assert len(traced) == expected
        monkeypatch.setattr(kind, "__call__", traces)


@pytest.mark.parametrize(
    ("module", "name"), [("_channel", "_end_unary_response_blocking"), ("_observability", "maybe_record_rpc_latency")]
)
def test_what_replaces_a_name_is_run(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """By multicallables that are made later, also if a pool has made others before; not when it is gone again."""
    home = sys.modules[f"grpc.{module}"]
    own = getattr(home, name)
    traced = []

    def traces(*arguments: Any) -> Any:
        traced.append(arguments)
        return own(*arguments)

    def call() -> int:
        unary: Any = channel.unary_unary(call_server.UU)
        make_lean(unary)
        assert unary(b"ok") == b"0"
        return len(traced)

    assert call() == 0
    monkeypatch.setattr(home, name, traces)
    assert call() == 1
    monkeypatch.undo()
    assert call() == 1


def test_what_replaces_the_read_of_a_stream_is_run(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By streams that are begun later; not when it is gone again."""
    common, own = sys.modules["grpc._common"], sys.modules["grpc._channel"]._MultiThreadedRendezvous
    traced = []

    def traces(of: Callable[..., Any]) -> Callable[..., Any]:
        def trace(*arguments: Any, **named: Any) -> Any:
            traced.append(arguments)
            return of(*arguments, **named)

        return trace

    def read() -> tuple[bool, bool]:
        traced.clear()
        stream: Any = channel.unary_stream(call_server.US)
        make_lean(stream)
        call = stream(b"ok")
        assert type(call) is own
        assert read_of(call)(call) == b"0"
        is_traced = bool(traced)
        assert list(call) == [b"1", b"2"]
        return is_traced, read_of(call) is own._next

    assert read() == (False, False)
    with monkeypatch.context() as waiting:
        waiting.setattr(common, "wait", traces(common.wait))
        assert read() == (True, False)
    with monkeypatch.context() as reading:
        reading.setattr(own, "_next", traces(own._next))
        assert read() == (True, True)
    assert read() == (False, False)


def test_a_tracer_whose_function_is_new_at_each_look(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run by each read, and multicallables that are made beside it have one class."""
    own = sys.modules["grpc._channel"]._MultiThreadedRendezvous
    traced: list[Any] = []

    def traces(of: Callable[..., Any], stream: Any, arguments: Any, named: Any) -> Any:
        traced.append(stream)
        return of(*arguments, **named)

    monkeypatch.setattr(own, "_next", wrapt.FunctionWrapper(own._next, traces))
    streams: list[Any] = [channel.unary_stream(call_server.US) for _ in range(3)]
    looks = []
    for stream in streams:
        make_lean(stream)
        looks.append(own._next)
        call = stream(b"ok")
        assert [read_of(call)(call), reader_of(call)(), *call] == [b"0", b"1", b"2"]
        assert traced == [call] * 4
        traced.clear()
    assert len({type(stream) for stream in streams}) == 1


def test_what_replaces_the_read_of_one_stream_is_run(channel: grpc.Channel) -> None:
    """An interceptor may put it there."""
    stream: Any = channel.unary_stream(call_server.US)
    make_lean(stream)
    call = stream(b"ok")
    own = call._next
    call._next = lambda: b"read: " + own()
    assert [reader_of(call)() for _ in range(3)] == [b"read: 0", b"read: 1", b"read: 2"]


def test_how_messages_are_waited_for() -> None:
    """As gRPC does it; where its code is other code, that is run."""
    own = sys.modules["grpc._common"]
    (common,) = _lean_waits(own).values()
    answers = iter([False, False, True])
    waited: list[float] = []
    assert common.wait(waited.append, lambda: next(answers)) is False
    assert waited == [own.MAXIMUM_WAIT_TIMEOUT] * 2
    assert common.wait(threading.Event().wait, lambda: False, timeout=0.01) is True
    spun: list[None] = []
    assert common.wait(threading.Event().wait, lambda: len(spun) == 2, spin_cb=lambda: spun.append(None)) is False
    for changed in ({"wait": print}, {"_wait_once": lambda: own.time}, {"_wait_once": None}):
        assert not _lean_waits(_module_like(own, **changed))
    assert not _lean_waits(None)


def test_what_replaces_a_name_in_the_memory_of_another(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run, not what was there before."""
    home = sys.modules["grpc._channel"]
    traced: list[str] = []
    monkeypatch.setattr(home, "_traced", traced, raising=False)
    monkeypatch.setattr(home, "_own", home._handle_event, raising=False)

    def tracing(by: str) -> types.FunctionType:
        names: dict[str, Any] = {}
        # Like gRPC's own, it has the names of gRPC's module.
        exec(f"def trace(*arguments):\n _traced.append({by!r})\n return _own(*arguments)", vars(home), names)  # noqa: S102 -- our own text
        of: types.FunctionType = names["trace"]
        return of

    def call() -> None:
        unary: Any = channel.unary_unary(call_server.UU)
        make_lean(unary)
        assert unary(b"ok") == b"0"

    with monkeypatch.context() as first:
        trace = tracing("first")
        place = id(trace)
        first.setattr(home, "_handle_event", trace)
        call()
    del trace, first
    others = [tracing("second")]
    while id(others[-1]) != place and len(others) < 1000:
        others.append(tracing("second"))
    monkeypatch.setattr(home, "_handle_event", others[-1])
    call()
    assert traced == ["first", "second"]


def test_a_multicallable_of_another_module(channel: grpc.Channel) -> None:
    """It stays as it is, wherever its class is from."""
    own: Any = type(channel.unary_unary(call_server.UU))
    other = type("Other", (own,), {"__slots__": (), "__module__": "not.imported"})
    unary: Any = channel.unary_unary(call_server.UU)
    unary.__class__ = other
    make_lean(unary)
    assert type(unary) is other


def test_a_multicallable_goes_with_its_last_reference(channel: grpc.Channel) -> None:
    """There is nothing by which it would hold itself."""
    multicallable: Any = channel.unary_unary(call_server.UU)
    make_lean(multicallable)
    assert multicallable(b"ok") == b"0"
    gone = weakref.ref(multicallable)
    del multicallable
    assert gone() is None


# --- the lock ---------------------------------------------------------------------------------------------------------


def _has_more(condition: Any) -> Any:
    condition.more = None
    return condition


@pytest.fixture(params=[_CallLock, call_lock_like(_has_more(threading.Condition()))], ids=["known", "unknown"])
def make_lock(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes the lock of a call."""
    made: Callable[[], Any] = request.param
    return made


def test_which_lock_is_made() -> None:
    """The quick one stands for conditions as this Python makes them; others are made by Python's own code."""
    assert call_lock_like(threading.Condition()) is _CallLock
    assert call_lock_like(_has_more(threading.Condition())) is _Condition


def test_a_lock_is_a_condition(make_lock: Callable[[], Any]) -> None:
    """It is held by one thread, reentrantly; waits and notifies."""
    lock = make_lock()
    assert isinstance(lock, threading.Condition)
    seen: list[object] = []
    waits = threading.Event()

    def wait() -> None:
        with lock:
            waits.set()
            seen.append(lock.wait(60))
            seen.append(lock.wait_for(lambda: len(seen) > 1, 60))

    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(60)
    with lock, lock:
        lock.notify()
    eventually(lambda: len(seen) == 1)
    with lock:
        seen.append("changed")
        lock.notify_all()
    thread.join(60)
    assert seen == [True, "changed", True]
    assert lock.acquire(blocking=False)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.notify()
    with pytest.raises(RuntimeError):
        lock.wait()
    with lock:
        assert not lock.wait(0)
