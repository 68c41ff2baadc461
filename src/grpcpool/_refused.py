"""Whether a server refused a call for its own limit of streams.

HTTP/2 has an error for it, ``REFUSED_STREAM`` (code 7), and promises that the server did nothing, so that the call may
be made again, whatever it does (RFC 9113, 8.7). gRPC retries such a call only if it can tell that the server never saw
it, and it cannot tell from a reset stream; it reports ``UNAVAILABLE``, and the code only in the details.
"""

from __future__ import annotations

import grpc

_TOLD = "RST_STREAM with error code 7"


def is_refused_stream(error: grpc.RpcError) -> bool:
    """Whether `error` is that of a stream that the server refused."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and _TOLD in (error.details() or "")
