"""What the pool depends on in gRPC's asyncio API: rows of `facts.py`."""

from __future__ import annotations

from typing import Final

from .fact import Fact

_AIO = "tests/grpc_facts/test_aio_names.py"
_LEAN = "tests/grpc_facts/test_lean_aio_multicallables.py"
_CHAIN = "tests/grpc_facts/test_interceptor_chain.py"

ASYNCIO_FACTS: Final = (
    # --- asyncio calls ------------------------------------------------------------------------------------------
    Fact(
        "grpc.aio._call",
        "private name",
        "1.60",
        "the module of asyncio calls: only of gRPC's own calls is it worth a warning that a name is missing",
        "there is no warning when one of the names below is missing",
        f"{_AIO}::test_calls_without_a_private_name",
    ),
    Fact(
        "_cython_call",
        "private name",
        "1.60",
        "shows whether a call ended well at a tenth of the public cost, and takes callbacks without holding the call",
        "status and end come from the public `code()` and `add_done_callback`, which cost more",
        f"{_AIO}::test_calls_without_a_private_name",
    ),
    Fact(
        "is_ok",
        "private name",
        "1.60",
        "shows whether a call ended well at a tenth of the public cost",
        "the status comes from the public `code()`, which costs more",
        f"{_AIO}::test_calls_without_is_ok",
    ),
    Fact(
        "_call_response",
        "private name",
        "1.60",
        "the task that sends the request of a call with one response: it shows that gRPC could not send it",
        "a call that gRPC cannot send, and that is not awaited, keeps its place until its pool is closed",
        f"{_AIO}::test_calls_that_cannot_be_sent",
    ),
    Fact(
        "_preparation",
        "private name",
        "1.60",
        "the same for a call with a stream of responses",
        "a call that gRPC cannot send, and that is not awaited, keeps its place until it is dropped",
        f"{_AIO}::test_calls_that_cannot_be_sent",
    ),
    Fact(
        "_handle_status_once_received",
        "private name",
        "1.60",
        "runs in the task that waits for the status of a stream: one that begins as its loop ends is waited for",
        "the connection of a stream that began as its loop ended may stay open until the process ends",
        "tests/grpc_facts/test_aio_tasks.py::test_of_a_stream_that_is_cancelled",
    ),
    Fact(
        "_done_writing_flag",
        "private name",
        "1.60",
        "gRPC's interceptors read it from the calls below them, which are the pool's",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_init_metadata",
        "private name",
        "1.60",
        "makes an object to hold the metadata of each asyncio call: calls without metadata share an empty one",
        "each asyncio call costs a hundredth more",
        f"{_LEAN}::test_the_metadata_of_calls",
    ),
    Fact(
        "_python_channel",
        "private name",
        "1.83",
        "is where an asyncio multicallable registers each of its calls; the pool, which knows them anyway, takes note "
        "instead, with two objects and a callback less",
        "each asyncio call costs a twentieth more",
        f"{_LEAN}::test_without_grpcs_names",
    ),
    Fact(
        "_register_call",
        "private name",
        "1.83",
        "is the method of the channel that registers a call",
        "each asyncio call costs a twentieth more",
        f"{_LEAN}::test_without_grpcs_names",
    ),
    Fact(
        "_active_calls",
        "private name",
        "1.83",
        "has the calls that an asyncio channel cancels when it is closed: those of the pool are added",
        "each asyncio call costs a twentieth more",
        f"{_LEAN}::test_calls_end_when_their_channel_is_closed",
    ),
    Fact(
        "UnaryUnaryMultiCallable.__call__ and its sisters",
        "code",
        "1.60",
        "starts the calls of asyncio multicallables: it is run with all arguments by position",
        "arguments are passed by name, which costs a hundredth more",
        f"{_LEAN}::test_without_grpcs_code",
    ),
    Fact(
        "UnaryUnaryCall",
        "code",
        "1.60",
        "is the class of the calls that `UnaryUnaryMultiCallable.__call__` makes: it makes those of a subclass, which "
        "keeps the messages of cancellations",
        "the pool waits in place of the calls, which costs a hundredth more",
        f"{_LEAN}::test_without_grpcs_code",
    ),
    # --- asyncio interceptors -----------------------------------------------------------------------------------
    Fact(
        "grpc.aio._interceptor",
        "private name",
        "1.60",
        "has the classes that run a chain of interceptors (`InterceptedUnaryUnaryCall` and its sisters), which is not "
        "possible in public",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_proxy_writes_as_request_iterator",
        "private name",
        "1.60",
        "makes an iterator of what is written to an intercepted call; gRPC's holds the call for ever",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_write_to_iterator_queue",
        "private name",
        "1.60",
        "has what was written to an intercepted call",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_write_to_iterator_queue_interruptible",
        "private name",
        "1.60",
        "puts what was written there, and waits for the end of the call as well, by a task that holds the call",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_status_code_task",
        "private name",
        "1.60",
        "is that task; a future that holds nothing takes its place",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_FINISH_ITERATOR_SENTINEL",
        "private name",
        "1.60",
        "marks the end of what was written to an intercepted call",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
    Fact(
        "_interceptors_task",
        "private name",
        "1.60",
        "runs the chain of an intercepted call; what was written is sent when it is done",
        "grpcpool runs the interceptors of pools and leases itself; nothing is lost",
        f"{_CHAIN}::test_without_grpcs_classes",
    ),
)
