"""Pools over a target: replacements for `grpc.insecure_channel` and `grpc.secure_channel`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

from .._grpc.options import isolated, shared_out
from .._shared.constructors import Constructor, LookUp, calling_code
from .._shared.targets import Credentials, TargetFactory, check_credentials, credentials_of, named_after
from .._values.config import PoolConfig
from .._values.listener import Listener
from .pool import ChannelPool

_INSECURE, _SECURE = (Constructor(grpc, name) for name in ("insecure_channel", "secure_channel"))


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
) -> ChannelPool:
    """Creates a pool of insecure channels to `target`: a drop-in for `grpc.insecure_channel`.

    Args:
        target: The server's address, as for `grpc.insecure_channel`. If it resolves to several, the connections
            are distributed among them, unless a service config among the options names a policy of its own.
        options: Channel options, for each of the connections.
        compression: The default compression of calls.
        config: The pool's settings.
        name: The pool's name in logs, events, errors and metrics; the target if not given.
        listeners: Notified of every event.

    Returns:
        A pool, which is a `grpc.Channel`. It connects at first use: in a process that is forked before that, as under
        ``gunicorn --preload``, gRPC has not even been started.
    """
    caller = calling_code()
    if _INSECURE.is_creating():
        return _INSECURE.create_below(caller, target, options, compression)  # type: ignore[no-any-return]  # a channel
    called, shared = named_after(target), shared_out(options)

    def factory() -> grpc.Channel:
        return _INSECURE.create(caller, target, isolated(shared), compression)  # type: ignore[no-any-return]

    return ChannelPool(
        TargetFactory(called, factory), config, name=called if name is None else name, listeners=listeners
    )


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
    """Creates a pool of secure channels to `target`: a drop-in for `grpc.secure_channel`.

    Args:
        target: As for `insecure_channel`.
        credentials: Credentials, or a callable that creates them, which is called for each connection. Use a callable
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
    caller = calling_code()
    if _SECURE.is_creating():
        return _SECURE.create_below(caller, target, credentials, options, compression)  # type: ignore[no-any-return]  # a channel
    check_credentials(credentials)
    called, shared = named_after(target), shared_out(options)

    def factory() -> grpc.Channel:
        made = credentials_of(credentials)
        return _SECURE.create(caller, target, made, isolated(shared), compression)  # type: ignore[no-any-return]

    return ChannelPool(
        TargetFactory(called, factory), config, name=called if name is None else name, listeners=listeners
    )


looked_up: Final = LookUp(
    {"insecure_channel": (_INSECURE, insecure_channel), "secure_channel": (_SECURE, secure_channel)}
)
