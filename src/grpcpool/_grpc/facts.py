"""What the pool depends on in gRPC and gRPC does not promise: one row each.

The rows are read by `missing.warn_of_missing`, by ``docs/draw_facts.py``, which draws a page for those that upgrade
grpcio, and by a test that allows these names in no other folder. The functions that use them, each with its guard, are
in the other modules of this folder.
"""

from __future__ import annotations

from typing import Final

from .asyncio_facts import ASYNCIO_FACTS
from .fact import Fact

_SYNC = "tests/grpc_facts/test_sync_names.py"
_LEAN = "tests/grpc_facts/test_lean_blocking_multicallables.py"
_REFUSALS = "tests/grpc_facts/test_refusals.py"
_OFFERED = "tests/grpc_facts/test_offered_names.py"
_PLAIN = "tests/grpc_facts/test_plain_channels.py"
_RELEASES = "tests/grpc_facts/test_releases.py"
_CANCELLED = "tests/aio_calls/test_cancel_messages.py"
_MESSAGES = "tests/grpc_facts/test_messages.py"

FACTS: Final = (
    # --- calls that block -----------------------------------------------------------------------------------------
    Fact(
        "_UnaryUnaryMultiCallable._blocking",
        "private name",
        "1.60",
        "where a blocking call waits, with the call in its variable `call`: so closing a handle can cancel it",
        "closing a handle does not cancel its blocking calls: they end by themselves, and `close()` waits for a second",
        f"{_SYNC}::test_a_blocking_call_of_a_handle_that_is_closed",
    ),
    Fact(
        "_RPCState",
        "private name",
        "1.60",
        "makes the lock of a blocking call, stream or future: its code is run with another lock, which is made and "
        "taken in half the time, and which no signal handler leaves locked",
        "each blocking call costs two hundredths more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_InitialMetadataFlags",
        "private name",
        "1.60",
        "is created for each call that is not on asyncio, to derive the flags of the call from `wait_for_ready`: one "
        "object that looks them up stands for it",
        "each blocking call costs a hundredth more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_observability.maybe_record_rpc_latency",
        "private name",
        "1.60",
        "is run at the end of each call that is not on asyncio. It takes a lock for the whole process, by a generator, "
        "to find that no plugin is registered: where it does no more than that, the pool looks for the plugin first",
        "each blocking call costs eight hundredths more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_common._wait_once",
        "private name",
        "1.60",
        "waits for a message of a stream for a tenth of a second, and may do something then; `_common.wait` calls it "
        "again and again: one function that does nothing in between stands for the two",
        "reading a stream costs a hundredth more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_observability._OBSERVABILITY_PLUGIN",
        "private name",
        "1.60",
        "what records the latency of calls, or `None`",
        "each blocking call costs eight hundredths more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_observability._SERVICES_TO_EXCLUDE",
        "private name",
        "1.60",
        "the services whose latency is not recorded; one of the names by which the code that records is known",
        "each blocking call costs eight hundredths more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_handle_event",
        "private name",
        "1.60",
        "notes the end of a call, and records its latency: its code is run with other names",
        "each blocking call costs eight hundredths more",
        f"{_LEAN}::test_with_other_code",
    ),
    Fact(
        "_event_handler",
        "private name",
        "1.60",
        "the same for streams and futures",
        "each of them costs that much more",
        f"{_LEAN}::test_with_other_code",
    ),
    # --- channels -----------------------------------------------------------------------------------------------
    Fact(
        "Channel._channel",
        "private name",
        "1.60",
        "leads from a `grpc.Channel` to the channel below it, which knows its state",
        "the state comes from `subscribe`, which costs a thread per connection and is up to 0.2 s late",
        f"{_SYNC}::test_connections_are_watched_in_public",
    ),
    Fact(
        "check_connectivity_state",
        "private name",
        "1.60",
        "returns the state of a connection in a microsecond",
        "the state comes from `subscribe`, which costs a thread per connection and is up to 0.2 s late",
        f"{_SYNC}::test_connections_are_watched_in_public",
    ),
    Fact(
        "watch_connectivity_state",
        "private name",
        "1.60",
        "waits for another state without polling and without the interpreter lock",
        "the state comes from `subscribe`, which costs a thread per connection and is up to 0.2 s late",
        f"{_SYNC}::test_connections_are_watched_in_public",
    ),
    Fact(
        "grpc._channel",
        "private name",
        "1.60",
        "the module of sync channels and calls: a frame of it on the stack shows that gRPC called, and its classes are "
        "gRPC's own calls",
        "the module is that of the channels that the factories of pools return",
        f"{_SYNC}::test_a_close_within_a_callback_does_not_wait_for_itself",
    ),
    Fact(
        "_channel_managed_call_management",
        "private name",
        "1.60",
        "contains the function that begins a future or stream, counts it, and starts the thread that serves them: if a "
        "signal handler raises there, the thread may be missing or end too early, and the connection is replaced",
        "the connection stays in service; its futures and streams may never end",
        f"{_SYNC}::test_a_signal_handler_that_raises_while_a_call_is_begun",
    ),
    Fact(
        "Channel._get_registered_call_handle",
        "private name",
        "1.63",
        "registers a method with a `grpc.Channel`; it crashes the process if that is closed, so it is guarded",
        "methods are not registered with the connections: each call sends the name of its method to gRPC's core",
        f"{_SYNC}::test_no_method_is_registered_without_a_guard",
    ),
    Fact(
        "Channel._close",
        "private name",
        "1.60",
        "closes a `grpc.Channel`; it is guarded, so that it waits for methods that are being registered",
        "methods are not registered with the connections: each call sends the name of its method to gRPC's core",
        f"{_SYNC}::test_no_method_is_registered_without_a_guard",
    ),
    Fact(
        "grpc.aio._channel",
        "private name",
        "1.60",
        "the module of asyncio channels: if their lists of interceptors are empty, nothing but gRPC sees the requests, "
        "and the pool serializes them before the call, to keep what it may have to send again",
        "what is sent is kept as gRPC serializes it, which costs more; factories of the other world get a vaguer error",
        f"{_PLAIN}::test_without_grpcs_names",
    ),
    # --- sync calls ---------------------------------------------------------------------------------------------
    Fact(
        "_state",
        "private name",
        "1.60",
        "has the initial metadata of a sync call, or nothing while gRPC has yet to see it, which shows whether the "
        "server has answered; the public method would wait for the very thread that asks",
        "the refusal of a `future()` or stream counts as a failure, because the server may have answered; the call is "
        "not sent again",
        f"{_REFUSALS}::test_an_answered_call_is_not_sent_again",
    ),
    Fact(
        "_state.callbacks",
        "private name",
        "1.60",
        "is the list to which a sync call adds its callbacks, under its `condition`: the pool replaces it by one that "
        "runs users' callbacks elsewhere, because gRPC's thread would wait for what they wait for, or end of what they "
        "raise",
        "calls with a request stream and calls of leases are of a subclass of gRPC's class, which logs what callbacks "
        "raise; one that blocks keeps other calls on the connection from ending",
        f"{_SYNC}::test_callbacks_that_raise",
    ),
    Fact(
        "_state.code",
        "private name",
        "1.60",
        "shows how a sync stream or future ended, at a tenth of the public cost",
        "the status comes from the public `code()`, which costs more",
        f"{_SYNC}::test_calls_without_the_code_of_their_state",
    ),
    Fact(
        "_state.due",
        "private name",
        "1.60",
        "shows whether a single-threaded stream has events left after it failed for its reader",
        "a single-threaded stream whose deserializer raised keeps its place until it is dropped",
        f"{_SYNC}::test_a_failed_single_threaded_stream",
    ),
    Fact(
        "_consume_next_event",
        "private name",
        "1.60",
        "takes note of the end of a single-threaded stream after it failed for its reader",
        "a single-threaded stream whose deserializer raised keeps its place until it is dropped",
        f"{_SYNC}::test_a_failed_single_threaded_stream",
    ),
    Fact(
        "_next",
        "private name",
        "1.60",
        "is where a stream fails for its reader: gRPC does not cancel a stream whose deserializer raised",
        "a stream whose deserializer raised keeps its place until it is dropped",
        f"{_SYNC}::test_a_failed_stream",
    ),
    Fact(
        "_ChannelState.condition",
        "private name",
        "1.60",
        "is the lock of a channel and its calls, which a signal handler that raises can leave locked",
        "of the calls of leases, some that a signal handler interrupts leave the connection unusable",
        f"{_SYNC}::test_a_signal_handler_that_raises_where_a_lock_is_taken",
    ),
    Fact(
        "_call",
        "private name",
        "1.60",
        "cancels a stream whose deserializer raised, which the public `cancel` does not",
        "a stream whose deserializer raised keeps its place until the server ends it",
        f"{_SYNC}::test_a_failed_stream",
    ),
    Fact(
        "_call.next_event",
        "private name",
        "1.60",
        "takes, with `_call.operate`, what is left of the events of a single-threaded stream that was dropped, "
        "cancelled or failed: gRPC would leave its connection open",
        "the connection of a single-threaded stream that its reader did not read to the end stays open after its close",
        f"{_SYNC}::test_a_dropped_single_threaded_stream",
    ),
    Fact(
        "receive_message",
        "private name",
        "1.60",
        "notes in `_state.due` that a message is due to a stream, before its read begins: the note is undone if a "
        "signal handler raised between the two, because gRPC's thread would wait for the message",
        "the close of a connection can crash the process if a signal handler has raised within a read of a stream",
        f"{_SYNC}::test_a_read_that_is_interrupted_before_it_begins",
    ),
    Fact(
        "managed_calls",
        "private name",
        "1.60",
        "counts a channel's futures and streams, whose thread ends with the last: one that a signal handler kept from "
        "being counted is counted",
        "if a signal handler raises while a future or stream begins, others on the connection may never end",
        f"{_SYNC}::test_a_signal_handler_that_raises_while_a_call_is_begun",
    ),
    Fact(
        "_call_state",
        "private name",
        "1.60",
        "leads to the thread of a channel: if a signal handler raised while it was being started, a thread of the "
        "pool's takes its place for the close of the channel",
        "such a connection may stay open until the process ends, and `close()` takes three seconds",
        f"{_SYNC}::test_a_signal_handler_that_raises_while_a_call_is_begun",
    ),
    Fact(
        "_MultiThreadedRendezvous",
        "private name",
        "1.60",
        "the class of calls whose callbacks come from a thread of gRPC's",
        "streams of unknown classes of gRPC's are treated like single-threaded ones, which costs a finalizer per call",
        f"{_SYNC}::test_streams_of_unknown_classes",
    ),
    Fact(
        "_SingleThreadedRendezvous",
        "private name",
        "1.60",
        "the class of streams whose callbacks come only during the iteration (`SingleThreadedUnaryStream`)",
        "streams of unknown classes of gRPC's are treated like single-threaded ones",
        f"{_SYNC}::test_streams_of_unknown_classes",
    ),
    Fact(
        "_InactiveRpcError",
        "private name",
        "1.60",
        "the class of what blocking calls raise: many programs name it in an `except` clause; its "
        "`initial_metadata()` does not wait",
        "errors of calls that never left the pool are `grpc.RpcError`, `grpc.Call` and `grpc.Future`, but not of "
        "gRPC's private class",
        f"{_SYNC}::test_errors_of_the_pool_without_grpcs_class",
    ),
    *ASYNCIO_FACTS,
    # --- what the pool's own objects have -----------------------------------------------------------------------
    *(
        Fact(
            name,
            "offered name",
            "1.60",
            "clients that Google generates append interceptors to this list of an asyncio channel",
            "the pool has the list whether or not gRPC's channels have it",
            f"{_OFFERED}::test_the_lists_of_interceptors",
        )
        for name in (
            "_unary_unary_interceptors",
            "_unary_stream_interceptors",
            "_stream_unary_interceptors",
            "_stream_stream_interceptors",
        )
    ),
    Fact(
        "_loop",
        "offered name",
        "1.60",
        "clients compare it with the running loop, to see whether an asyncio channel that they keep still serves",
        "the pool has it whether or not gRPC's channels have it",
        f"{_OFFERED}::test_the_loop_of_a_channel",
    ),
    Fact(
        "_registered_method",
        "offered name",
        "1.63",
        "generated stubs pass it to the channel's four makers of multicallables",
        "it is passed on only to channels whose makers have it",
        f"{_OFFERED}::test_registered_methods_of_older_channels",
    ),
    Fact(
        "_registered_call_handle",
        "offered name",
        "1.63",
        "gRPC's own tests read it from sync multicallables to see that a method is registered",
        "the pool's multicallables have it whether or not gRPC's have it",
        f"{_OFFERED}::test_registered_methods",
    ),
    Fact(
        "_get_registered_call_handle",
        "offered name",
        "1.63",
        "the functions of `grpc.experimental` that call without a stub ask the channel for it",
        "the pool has it whether or not gRPC's channels have it",
        f"{_OFFERED}::test_calls_without_a_stub",
    ),
    # --- texts --------------------------------------------------------------------------------------------------
    Fact(
        "Received RST_STREAM with error code 7",
        "message",
        "1.60",
        "how gRPC reports that the server refused a stream at its limit (`REFUSED_STREAM`), which no status code does",
        "a refused call fails `UNAVAILABLE` and is not sent again",
        f"{_MESSAGES}::test_a_refusal_in_other_words",
    ),
    Fact(
        "Socket closed, recvmsg, sendmsg, Connection reset, Broken pipe, Stream removed, GOAWAY, keepalive",
        "message",
        "1.60",
        "what gRPC says of calls whose connection is gone, some milliseconds before the channel's state shows it",
        "a lost connection is noticed by the channel's state alone, and a few calls more fail on it",
        f"{_MESSAGES}::test_a_loss_in_other_words",
    ),
    Fact(
        "failed to connect to all addresses, connections to all backends failing",
        "message",
        "1.60",
        "what gRPC says of a call that it could not send, because its channel does not connect; the words name the "
        "address",
        "such a call fails although another connection is up; it is not sent there",
        f"{_MESSAGES}::test_a_failed_connect_in_other_words",
    ),
    Fact(
        "Deadline Exceeded, Stream removed (Deadline Exceeded)",
        "message",
        "1.60",
        "what gRPC says of a call that it ended itself at its deadline, so that no server has answered it; later "
        "releases say the latter if it was still sending",
        "a connection that answers nothing is not replaced by `unresponsive_after`; gRPC notices by itself, later",
        f"{_MESSAGES}::test_a_deadline_in_other_words",
    ),
    Fact(
        "Exception serializing request!, Exception deserializing response!, message larger than max",
        "message",
        "1.60",
        "what gRPC says of messages that it could not send or read, or that are too large: the server is well",
        "such calls count as failures of their server, which ranks behind others for a while",
        f"{_MESSAGES}::test_messages_that_are_not_sent_or_read",
    ),
    Fact(
        "Exception iterating requests!, Invalid metadata",
        "message",
        "1.60",
        "what gRPC says of a call whose requests raise, and of metadata that it cannot send: the server is well",
        "such calls count as failures of their server, which ranks behind others for a while",
        f"{_MESSAGES}::test_what_a_caller_may_not_send",
    ),
    Fact(
        "Internal error from Core",
        "message",
        "1.60",
        "what gRPC says on asyncio of a write to a call that its server has just ended; the server's status follows",
        "a healthy server that ends uploads early ranks behind others for a while",
        "tests/aio_pool/test_sick_servers.py::test_a_healthy_server_that_ends_uploads_early_is_not_avoided",
    ),
    Fact(
        "Method not found!, unknown service, Method not found:",
        "message",
        "1.60",
        "how servers in Python, Go and Java answer a call of an unknown method: `grpcpool probe` names them by it",
        "`grpcpool probe` does not name the kind of server",
        f"{_MESSAGES}::test_a_server_in_other_words",
    ),
    # --- releases -----------------------------------------------------------------------------------------------
    Fact(
        "an unused connection that was lost is noticed",
        "release",
        "1.80",
        "before, gRPC notices it only during a wait for a change: the pool waits 2 ms for one when it looks",
        "the pool waits, and trusts a connection for 0.5 s instead of 0.01 s after it looked",
        f"{_RELEASES}::test_a_loss_is_noticed_either_way",
    ),
    Fact(
        "a finished asyncio call does not hold itself",
        "release",
        "1.83",
        "before, a call with a done callback keeps the connection of its closed channel open until a garbage "
        "collection",
        "the callback is added to the call below, which passes no call to it",
        f"{_RELEASES}::test_ended_calls_are_freed",
    ),
    Fact(
        "an abandoned asyncio call is never collected",
        "release",
        "1.83",
        "its stream would stay taken: the pool returns a shell that cancels a stream of responses when it is dropped",
        "the shell costs a little, and changes nothing",
        "tests/aio_calls/test_abandoned.py::test_a_running_call",
    ),
    Fact(
        "a unary asyncio call loses the message of a cancellation",
        "release",
        "1.60",
        "anyio recognises its own cancellations by it; the call cancels itself while it handles the error, where a "
        "subclass finds the message",
        "the pool waits in place of calls of other classes, which costs a hundredth more and always works",
        f"{_CANCELLED}::test_without_knowledge_of_grpcs_classes",
    ),
    Fact(
        "`close()` of an asyncio channel ends its streams",
        "release",
        "1.83",
        "before, streams run on: the pool cancels the calls of a connection before it closes the channel",
        "the calls are cancelled twice, which changes nothing",
        f"{_RELEASES}::test_close_ends_streams",
    ),
    Fact(
        "a closed asyncio channel knows its calls",
        "release",
        "1.83",
        "before, it looks for them in all tasks, and fails at a call that has neither `_channel` nor `_cython_call`: "
        "those of pools have a `_channel` of `None`",
        "the attribute is not read",
        "tests/aio_calls/test_nothing_is_left.py::test_a_channel_closes_while_a_task_reads_a_call_of_a_pool",
    ),
    Fact(
        "a call with metadata that cannot be sent fails with `INTERNAL`",
        "release",
        "1.81",
        "before, it cannot be begun on threads: `ValueError`. A call that waits for a place does as its release does",
        "such a call fails in the other way if it has to wait",
        f"{_RELEASES}::test_metadata_that_cannot_be_sent",
    ),
    Fact(
        "a request of 256 KiB is not kept for another attempt",
        "release",
        "1.60",
        "the call that asks a channel why it does not connect would be repeated as the `retryPolicy` of its service "
        "config says; with such a request it is not",
        "such a channel counts as one that does not connect only when gRPC has made all attempts",
        f"{_RELEASES}::test_why_a_channel_does_not_connect_is_known_at_once",
    ),
    Fact(
        "a channel scales its connections",
        "release",
        "1.84",
        "the demonstration compares the pool with it (`connectionScaling`)",
        "the demonstration leaves it out",
        f"{_RELEASES}::test_the_demonstration_without_scaling",
    ),
)
"""All of them."""

FACT_OF: Final = {fact.name: fact for fact in FACTS}
"""The facts by their names."""
