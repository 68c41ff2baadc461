"""What the status of a failed call tells a pool."""

from __future__ import annotations

from typing import Any

import grpc

_REFUSED = "RST_STREAM with error code 7"


def code_of(call: Any) -> grpc.StatusCode | None:
    """The status code of a call that is over, or of an error; `None` if it has none, as what interceptors raise may."""
    code: grpc.StatusCode | None = _said(call, "code")
    return code


def is_refused_stream(error: grpc.RpcError) -> bool:
    """Whether a server refused the call for its own limit of streams.

    HTTP/2 has an error for it, ``REFUSED_STREAM`` (code 7), and promises that the server did nothing, so that the call
    may be made again, whatever it does (RFC 9113, 8.7). gRPC reports ``UNAVAILABLE``, and the code only in the details.
    """
    return code_of(error) is grpc.StatusCode.UNAVAILABLE and _REFUSED in str(_said(error, "details") or "")


def _said(call: Any, name: str) -> Any:
    """What a method of a call says; `None` if there is none, or it fails: calls and errors may be of another make."""
    try:
        method = getattr(call, name, None)
        return method() if callable(method) else None
    except Exception:  # noqa: BLE001 -- as above
        return None
