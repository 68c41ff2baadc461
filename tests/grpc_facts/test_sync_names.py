"""Sync pools over a gRPC whose private names are others: they work, or say what is lost."""

from __future__ import annotations

import pytest

from grpc_facts.programs import UNCHANGED, Changed, attribute_renamed, renamed
from grpcpool._grpc.version import GRPC_RELEASE
from support.call_server import CallServer

pytestmark = pytest.mark.timeout(120)

_MODULE_RENAMED = Changed(
    {r"\bfrom grpc import _channel\b": "from grpc import _client as _channel", r"\bgrpc\._channel\b": "grpc._client"},
    {"grpc._client": "grpc._channel"},
)


def test_nothing_is_missing_in_this_release(calls: CallServer) -> None:
    """With gRPC as it is the pool warns of nothing, and uses what is private."""
    ended = UNCHANGED.run("calls", calls.target)
    assert (ended.result, ended.warnings) == ("NativeConnectivity", [])
    assert UNCHANGED.run("failed_stream", calls.target, False).result == ["INTERNAL", True, True]
    assert UNCHANGED.run("failed_stream", calls.target, True).result == ["INTERNAL", True, True]
    assert UNCHANGED.run("errors", calls.target).result[2] == [True, True, True, True]


@pytest.mark.parametrize(
    ("name", "grpc"),
    [
        ("Channel._channel", attribute_renamed("_channel")),
        ("check_connectivity_state", Changed(hidden=("check_connectivity_state",))),
        ("watch_connectivity_state", Changed(hidden=("watch_connectivity_state",))),
    ],
    ids=["channel", "check", "watch"],
)
def test_connections_are_watched_in_public(calls: CallServer, name: str, grpc: Changed) -> None:
    """Without the private channel, or one of its two calls, the pool subscribes to the public one, and says so."""
    ended = grpc.run("connecting", calls.target)
    assert ended.result == ["UNAVAILABLE", "SubscribedConnectivity"]
    assert ended.warned_of(name)


@pytest.mark.skipif(GRPC_RELEASE < (1, 63), reason="gRPC registers no methods")
@pytest.mark.parametrize("name", ["_get_registered_call_handle", "_close"])
def test_no_method_is_registered_without_a_guard(calls: CallServer, name: str) -> None:
    """Without one of the two methods that the guard replaces, methods stay unregistered, and the pool says so."""
    assert UNCHANGED.run("registered_or_not", calls.target).result == [True, "b'0'"]
    ended = renamed(name).run("registered_or_not", calls.target)
    assert ended.result == [False, "b'0'"]
    assert ended.warned_of(f"Channel.{name}")


def test_errors_while_grpc_is_being_imported(calls: CallServer) -> None:
    """An error that is made while another thread imports gRPC's module of channels settles nothing for later ones."""
    assert UNCHANGED.run("half_imported", calls.target).result == [False, True]


def test_a_blocking_call_of_a_handle_that_is_closed(calls: CallServer) -> None:
    """Where gRPC's calls wait in another function, it goes on to its own end, and the pool says so."""
    assert UNCHANGED.run("closed_handle", calls.target).result == [True, "CANCELLED"]
    ended = renamed("_blocking").run("closed_handle", calls.target)
    assert ended.result == [False, "DEADLINE_EXCEEDED"]
    assert ended.warned_of("_UnaryUnaryMultiCallable._blocking")


def test_a_close_within_a_callback_does_not_wait_for_itself(calls: CallServer) -> None:
    """`close()` on gRPC's thread returns at once, also when the module that calls back has another name."""
    for grpc in (UNCHANGED, _MODULE_RENAMED):
        assert grpc.run("close_within_callback", calls.target).result is True


@pytest.mark.parametrize("before", ["the thread is started", "the call is counted"])
def test_a_signal_handler_that_raises_while_a_call_is_begun(calls: CallServer, before: str) -> None:
    """The connection is replaced; where calls are begun in another function, it stays in service."""
    assert UNCHANGED.run("interrupted_start", calls.target, before).result == [True, "b'0'", True]
    other = renamed("_channel_managed_call_management")
    assert other.run("interrupted_start", calls.target, before).result[:2] == [False, ""]


@pytest.mark.parametrize("before", ["the thread is started", "the call is counted"])
def test_calls_that_are_not_counted(calls: CallServer, before: str) -> None:
    """A thread of the pool's serves a channel for its close if gRPC counts its calls otherwise; else it never ends."""
    assert UNCHANGED.run("interrupted_beside_another", calls.target).result == ["DEADLINE_EXCEEDED", True]
    ended = renamed("managed_calls").run("interrupted_start", calls.target, before)
    assert ended.result == [True, "b'0'", True]
    assert ended.warned_of("managed_calls")
    ended = renamed("managed_calls", "_call_state").run("interrupted_start", calls.target, before)
    assert ended.result == [True, "b'0'", False]
    assert ended.warned_of("_call_state")


def test_a_signal_handler_that_raises_where_a_lock_is_taken(calls: CallServer) -> None:
    """A channel's lock has no such place; where it is of another class, it may have, and the pool warns."""
    assert UNCHANGED.run("interrupted_lock", calls.target, False).result == [False, True]
    ended = UNCHANGED.run("interrupted_lock", calls.target, True)
    assert ended.result == [True, False]
    assert ended.warned_of("_ChannelState.condition")


def test_a_read_that_is_interrupted_before_it_begins(calls: CallServer) -> None:
    """The stream can be read on, and gRPC's thread ends with it; where reads begin otherwise, the pool warns."""
    assert UNCHANGED.run("interrupted_read", calls.target, "it begins").result == [["b'0'", "b'1'", "b'2'"], True]
    assert UNCHANGED.run("interrupted_read", calls.target, "its stream ends").result == [["CANCELLED"], True]
    assert UNCHANGED.run("interrupted_read", calls.target, "it fails to begin").result == [["CANCELLED"], True]
    assert UNCHANGED.run("interrupted_within_a_read", calls.target).result == [["CANCELLED"], True]
    ended = renamed("due").run("interrupted_read", calls.target, "its stream ends")
    assert ended.result == [["CANCELLED"], False]
    assert ended.warned_of("receive_message")


def test_a_read_that_is_interrupted_while_another_waits(calls: CallServer) -> None:
    """What is noted for that one stays: gRPC's thread goes on, and ends with the stream."""
    assert UNCHANGED.run("interrupted_beside_a_read", calls.target).result == ["CANCELLED", "b'0'", True]


def test_a_read_that_is_interrupted_as_its_stream_ends(calls: CallServer) -> None:
    """What shows that a read has begun is not left to gRPC's thread when that ends: the channel can be closed."""
    assert UNCHANGED.run("interrupted_at_the_end", calls.target).result == ["CANCELLED", True]


def test_the_module_of_calls_has_another_name(calls: CallServer) -> None:
    """What is known of gRPC's own classes by their module is known under the new name: nothing is lost."""
    assert _MODULE_RENAMED.run("calls", calls.target).warnings == []
    assert _MODULE_RENAMED.run("failed_stream", calls.target, False).result == ["INTERNAL", True, True]
    assert _MODULE_RENAMED.run("errors", calls.target).result[2] == [True, True, True, True]


@pytest.mark.parametrize(
    ("name", "grpc", "while_held", "when_dropped"),
    [
        ("_next", renamed("_next"), False, True),
        ("_call", attribute_renamed("_call"), False, False),
    ],
    ids=["next", "call"],
)
def test_a_failed_stream(calls: CallServer, name: str, grpc: Changed, while_held: bool, when_dropped: bool) -> None:
    """A stream whose deserializer raised fails for its reader; its place is free later, and the pool says so."""
    ended = grpc.run("failed_stream", calls.target, False)
    assert ended.result == ["INTERNAL", while_held, when_dropped]
    assert ended.warned_of(name)
    assert grpc.run("calls", calls.target).result == "NativeConnectivity"


@pytest.mark.parametrize(
    ("name", "grpc"),
    [
        ("_state.due", Changed({r"\.due\b": ".renamed_due"})),
        ("_consume_next_event", renamed("_consume_next_event")),
    ],
    ids=["due", "consume"],
)
def test_a_failed_single_threaded_stream(calls: CallServer, name: str, grpc: Changed) -> None:
    """So it is with a stream that runs only while it is iterated."""
    ended = grpc.run("failed_stream", calls.target, True)
    assert ended.result == ["INTERNAL", False, True]
    assert ended.warned_of(name)
    assert grpc.run("dropped_stream", calls.target, True).result is True


_BELOW = """

class _OtherCall:
    def __init__(self, call):
        self.next_event, self.cancel, self._operate = call.next_event, call.cancel, call.operate

    def operate(self, operations, tag):
        if not operations:
            raise ValueError("there is nothing to do")
        return self._operate(operations, tag)


class _SingleThreadedRendezvous("""


def test_a_dropped_single_threaded_stream(calls: CallServer) -> None:
    """Nothing of it is left; where its events cannot be taken, its connection stays open, and the pool says so."""
    assert UNCHANGED.run("connections_after_drop", calls.target).result == 0
    other = Changed(
        {
            r"\nclass _SingleThreadedRendezvous\(": _BELOW,
            r"(return _SingleThreadedRendezvous\(\s+state, )call,": r"\1_OtherCall(call),",
        }
    )
    ended = other.run("connections_after_drop", calls.target)
    assert ended.result == 1
    assert ended.warned_of("_call.next_event")


@pytest.mark.parametrize("word", ["callbacks", "condition"])
def test_callbacks_that_raise(calls: CallServer, word: str) -> None:
    """What they raise is logged, with or without the list of a call; without it, the call has another class."""
    assert UNCHANGED.run("raising_callback", calls.target).result == [True] * 4
    ended = Changed({rf"\.{word}\b": f".renamed_{word}"}).run("raising_callback", calls.target)
    assert ended.result == [False, True] * 2
    assert ended.warned_of("_state.callbacks")


def test_calls_without_the_code_of_their_state(calls: CallServer) -> None:
    """How a stream or a `future()` ended comes from its public method, and the pool says so."""
    code = {r"\b(\w*state)\.code\b": r"\1.renamed_code", r"\bself\.code = code\b": "self.renamed_code = code"}
    ended = Changed(code).run("calls", calls.target)
    assert ended.result == "NativeConnectivity"
    assert ended.warned_of("_state.code")


@pytest.mark.parametrize("single_threaded", [False, True])
@pytest.mark.parametrize("name", ["_MultiThreadedRendezvous", "_SingleThreadedRendezvous"])
def test_streams_of_unknown_classes(calls: CallServer, name: str, single_threaded: bool) -> None:
    """A stream that is dropped, or fails, leaves its place, whatever its class is called."""
    grpc = renamed(name)
    ended = grpc.run("dropped_stream", calls.target, single_threaded)
    assert (ended.result, ended.warnings) == (True, [])
    assert grpc.run("failed_stream", calls.target, single_threaded).result == ["INTERNAL", True, True]
    assert grpc.run("calls", calls.target).warnings == []


_CLASS = r"class _InactiveRpcError\(grpc\.RpcError, grpc\.Call, grpc\.Future\):"


@pytest.mark.parametrize(
    "grpc",
    [
        renamed("_InactiveRpcError"),
        Changed({_CLASS: "class _InactiveRpcError(grpc.Call, grpc.RpcError, grpc.Future):"}),
        Changed({_CLASS: "class _InactiveRpcError(grpc.RpcError):"}),
        Changed(
            {
                _CLASS: "class _InactiveRpcError(grpc.RpcError, grpc.Call, grpc.Future):\n"
                "    def __init_subclass__(cls): raise TypeError('final')\n"
            }
        ),
    ],
    ids=["renamed", "other_order", "fewer_bases", "final"],
)
def test_errors_of_the_pool_without_grpcs_class(calls: CallServer, grpc: Changed) -> None:
    """Where gRPC's class of errors is not as known, the pool's errors are what is public, and the pool says so."""
    ended = grpc.run("errors", calls.target)
    code, details, (error, call, future, own) = ended.result
    assert (code, details, error, call, future) == ("RESOURCE_EXHAUSTED", "pool", True, True, True)
    assert own or ended.warned_of("_InactiveRpcError")
