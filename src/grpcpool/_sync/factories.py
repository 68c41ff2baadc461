"""Pools over a target: what replaces `grpc.insecure_channel` and `grpc.secure_channel`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from .._grpc.options import isolated, shared_out
from .._shared.targets import (
    Credentials,
    check_credentials,
    credentials_of,
    is_making_a_channel,
    making_a_channel,
    named_after,
)
from .._values.config import PoolConfig
from .._values.listener import Listener
from .pool import ChannelPool

# What there was before anybody put these in gRPC's place.
_grpc_insecure_channel, _grpc_secure_channel = grpc.insecure_channel, grpc.secure_channel


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
) -> ChannelPool:
    """Makes a pool of insecure channels to `target`: a drop-in for `grpc.insecure_channel`.

    Args:
        target: The server's address, as for `grpc.insecure_channel`. If it resolves to several, the connections
            are shared out among them, unless a service config among the options names a policy of its own.
        options: Channel options, for each of the connections.
        compression: The default compression of calls.
        config: The pool's settings.
        name: What logs, events, errors and metrics call the pool; the target if not given.
        listeners: Told of every event.

    Returns:
        A pool, which is a `grpc.Channel`. It connects at first use: in a process that is forked before that, as under
        ``gunicorn --preload``, gRPC has not even been started.
    """
    if is_making_a_channel():
        return _grpc_insecure_channel(target, options, compression)  # type: ignore[return-value]  # as documented above
    called, shared = named_after(target), shared_out(options)

    def factory() -> grpc.Channel:
        # Looked up at each call: instrumentation replaces it.
        with making_a_channel():
            return grpc.insecure_channel(target, isolated(shared), compression)

    return ChannelPool(factory, config, name=called if name is None else name, listeners=listeners)


def secure_channel(
    target: str,
    credentials: Credentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
) -> ChannelPool:
    """Makes a pool of secure channels to `target`: a drop-in for `grpc.secure_channel`.

    Args:
        target: As for `insecure_channel`.
        credentials: Credentials, or a callable that makes them, which is called for each connection. Use a callable
            for `grpc.compute_engine_channel_credentials`, which must not be shared between channels, and for
            certificates that are renewed (then `ChannelPool.refresh`).
        options: As for `insecure_channel`.
        compression: As for `insecure_channel`.
        config: As for `insecure_channel`.
        name: As for `insecure_channel`.
        listeners: As for `insecure_channel`.

    Returns:
        A pool, which is a `grpc.Channel`. It connects at first use: in a process that is forked before that, as under
        ``gunicorn --preload``, gRPC has not even been started.
    """
    if is_making_a_channel():
        return _grpc_secure_channel(target, credentials, options, compression)  # type: ignore[arg-type, return-value]
    check_credentials(credentials)
    called, shared = named_after(target), shared_out(options)

    def factory() -> grpc.Channel:
        made = credentials_of(credentials)
        with making_a_channel():
            return grpc.secure_channel(target, made, isolated(shared), compression)

    return ChannelPool(factory, config, name=called if name is None else name, listeners=listeners)
