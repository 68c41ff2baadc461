"""Channels of gRPC's own whose calls no interceptor sees."""

from __future__ import annotations

from typing import Any

from .client_modules import AIO_CHANNELS

_LISTS = (
    "_unary_unary_interceptors",
    "_unary_stream_interceptors",
    "_stream_unary_interceptors",
    "_stream_stream_interceptors",
)


def is_plain(channel: Any) -> bool:
    """Whether nothing but gRPC sees the requests of the channel's calls: then they may be serialized before."""
    kind = type(channel)
    if kind.__name__ != "Channel":
        return False
    if kind.__module__ == "grpc._channel":
        # With interceptors it is of another class.
        return True
    return kind.__module__ == AIO_CHANNELS and not any(getattr(channel, name, True) for name in _LISTS)
