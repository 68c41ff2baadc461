"""What the status of a failed call means for a pool."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from .aio_calls import is_grpcs_own
from .call_errors import has_answered, is_answer_pending
from .client_modules import CLIENT_MODULES
from .missing import warn_of_missing

# gRPC's own words, in nothing but its own parentheses: most servers that relay the error of another server add words.
# They have been around the words and, in 1.81 and 1.82, also after them. If it was sending when the refusal came, gRPC
# says so at the end; since 1.81, on asyncio, maybe at the beginning.
_SENDING = "Error in HTTP transport completing operation: "
_REFUSED = re.compile(
    rf"(?:{_SENDING}[^()]*\()?"
    r"(?:[A-Za-z_ ]+\()*Received RST_STREAM with error code 7(?: \(RST_STREAM\))?\)*"
    rf"(?: \({_SENDING}.*\))?"
)


# What gRPC says of calls whose connection has gone, from 1.60 to 1.85; of a single stream that was reset, it says so.
_LOST = re.compile(
    r"Socket closed|recvmsg|sendmsg|Connection reset|Broken pipe|Stream removed|GOAWAY|keepalive", re.IGNORECASE
)
_RESET = "RST_STREAM"


# What gRPC says of a call that never left, because its channel could not connect; with a policy such as `round_robin`.
# The address that it names, as a URI, is the last that it tried.
_NOT_CONNECTED = re.compile(
    r"\A(?:failed to connect to all addresses|connections to all backends failing)(?:; last error: [A-Z_]+: (\S+): )?"
)

# What gRPC says of a call that it ended itself at its deadline, in its own parentheses if it was still sending. A
# server that gives up on a call has other words.
_OWN_DEADLINE = re.compile(r"(?:[A-Za-z_ ]+\()*Deadline Exceeded\)*")

# What gRPC says of what a caller gave it and it could not send, or of messages that it could not read, or that are too
# large: no server is sick then. On asyncio the last is what a call has for a moment that writes when its server has
# just ended it; the server's status follows.
_MESSAGES = re.compile(
    r"Exception (de)?serializing (request|response)!|Exception iterating requests!|message larger than max"
    r"|\A(Invalid metadata|Internal error from Core)\Z"
)

_SICK = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class Status(NamedTuple):
    """How a call ended, and what that says of its connection and its server.

    Attributes:
        code: `None` if the call has none, as what interceptors raise may.
        details: Empty if it has none.
    """

    code: grpc.StatusCode | None
    details: str

    @property
    def is_of_sick_server(self) -> bool:
        """Whether the call failed as calls do on a sick server. Healthy servers answer with the other codes."""
        return self.code in _SICK and _MESSAGES.search(self.details) is None

    @property
    def is_unanswered(self) -> bool:
        """Whether the call ended without an answer of the server: at its deadline, or it was cancelled.

        A server, too, may end a call with one of these codes. If the text is not known, it counts as an answer.
        """
        if self.code is grpc.StatusCode.CANCELLED:
            return True
        return self.code is grpc.StatusCode.DEADLINE_EXCEEDED and _OWN_DEADLINE.fullmatch(self.details) is not None

    @property
    def tells_of_loss(self) -> bool:
        """Whether the call failed in the words that gRPC has for a connection that is gone.

        Calls notice that some milliseconds before the channel's state shows it. A server that uses these words of its
        own costs its connection a moment out of service.
        """
        if self.code is not grpc.StatusCode.UNAVAILABLE or _RESET in self.details:
            return False
        return _LOST.search(self.details) is not None

    @property
    def unreached(self) -> str | None:
        """The address that gRPC could not reach, if the call failed in the words that it has for one it could not send.

        As `uri_of` returns it; empty if the words name none. `None` if these are other words. A server may relay these
        words, which then name the address of another server.
        """
        words = _NOT_CONNECTED.match(self.details) if self.code is grpc.StatusCode.UNAVAILABLE else None
        return None if words is None else words[1] or ""


def status_of(call: Any) -> Status:
    """The status of a call that is over, or of an error."""
    return Status(code_of(call), details_of(call))


def status_of_done(native: Any) -> Status:
    """The status of an asyncio call that is over."""
    return Status(answer_of_done(native.code), str(answer_of_done(native.details) or ""))


def code_of(call: Any) -> grpc.StatusCode | None:
    """The status code of a call that is over, or of an error; `None` if it has none, as what interceptors raise may.

    That of `None`, a stream that was dropped, is `CANCELLED`.

    gRPC's private way costs a tenth of the public one, which every stream would pay.
    """
    code: Any = None
    try:
        code = call._state.code
    except Exception:  # noqa: BLE001 -- what an interceptor returned may raise anything
        if call is None:
            return grpc.StatusCode.CANCELLED
        if type(call).__module__ in CLIENT_MODULES:
            warn_of_missing("_state.code" if hasattr(call, "_state") else "_state")
    if not isinstance(code, grpc.StatusCode):
        code = _said(call, "code")
    known: grpc.StatusCode | None = code
    return known


def details_of(call: Any) -> str:
    """The details of a call that is over, or of an error; empty if it has none."""
    return str(_said(call, "details") or "")


def uri_of(address: str) -> str:
    """How gRPC's errors name an IP address with a port, such as ``10.0.0.1:50051`` or ``[::1]:50051``."""
    scheme = "ipv6" if address.startswith("[") else "ipv4"
    return f"{scheme}:{address.replace('[', '%5B').replace(']', '%5D')}"


def is_refused_stream(error: grpc.RpcError) -> bool:
    """Whether a server refused the call for its own limit of streams.

    HTTP/2 has an error for it, ``REFUSED_STREAM`` (code 7), and promises that the server did nothing, so that the call
    may be made again, whatever it does (RFC 9113, 8.7). gRPC reports ``UNAVAILABLE``, and the code only in the details.
    A stream counts as refused while `is_answer_pending`: whether it is sent again is decided when that is known.
    """
    return says_refused(code_of(error), _said(error, "details")) and is_without_metadata(error)


def is_without_metadata(error: Any) -> bool:
    """Whether the server of a sync call that failed sent no metadata, or that `is_answer_pending`."""
    if not _is_empty(_said(error, "trailing_metadata")):
        return False
    # In this order: it may come in between.
    return is_answer_pending(error) or has_answered(error) is False


def says_refused(code: grpc.StatusCode | None, details: str | None, *metadata: Any) -> bool:
    """Whether a call says in its code and details that it was refused, see `is_refused_stream`; and has no `metadata`.

    A server that sent metadata has done something, and one may have for which that is unknown (`None`): a call that
    may have been processed is never sent again.
    """
    if code is not grpc.StatusCode.UNAVAILABLE or _REFUSED.fullmatch(str(details or "")) is None:
        return False
    return all(map(_is_empty, metadata))


def _is_empty(metadata: Any) -> bool:
    return metadata is not None and not metadata


def answer_of_done(ask: Callable[[], Any]) -> Any:
    """What a coroutine method of an asyncio call that is over answers, which it does without waiting.

    `None` if it does wait, or fails: calls may be of another implementation.
    """
    answer = ask()
    try:
        answer.send(None)
    except StopIteration as stop:
        return stop.value
    except Exception:  # noqa: BLE001 -- as above
        return None
    answer.close()
    return None


def _said(call: Any, name: str) -> Any:
    """What a method of a call returns; `None` if it is missing or fails, as in other implementations."""
    try:
        method = getattr(call, name, None)
        return method() if callable(method) else None
    except Exception:  # noqa: BLE001 -- as above
        return None


def has_succeeded(native: Any) -> bool:
    """Whether an asyncio call that is over is known to have ended with `OK`.

    gRPC's private way costs a tenth of the public one, which every call would pay; `False` if it is unknown.
    """
    try:
        ok: bool = native._cython_call.is_ok()
    except AttributeError:
        if is_grpcs_own(native):
            warn_of_missing("is_ok" if hasattr(native, "_cython_call") else "_cython_call")
        return answer_of_done(native.code) is grpc.StatusCode.OK
    return ok


def is_done_refused(native: Any, status: Status) -> bool:
    """As `is_refused_stream`, of an asyncio call that is over with `status`.

    gRPC itself may report no initial metadata of a stream although there was some, if that came in one packet with the
    end (measured: more often on 1.60 than on 1.85). No one can tell such a stream from one that was refused.
    """
    return status.code is grpc.StatusCode.UNAVAILABLE and says_refused(*status, *_metadata_of_done(native))


def is_done_without_metadata(native: Any) -> bool:
    """Whether the server of an asyncio call that is over sent no metadata."""
    return all(map(_is_empty, _metadata_of_done(native)))


def _metadata_of_done(native: Any) -> tuple[Any, Any]:
    return answer_of_done(native.initial_metadata), answer_of_done(native.trailing_metadata)
