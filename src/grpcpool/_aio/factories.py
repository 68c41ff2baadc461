"""Pools over a target: replacements for `grpc.aio.insecure_channel` and `grpc.aio.secure_channel`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

from .._grpc.options import Options
from .._shared.constructors import Constructor, LookUp, calling_code
from .._shared.destination import AddressSource
from .._shared.targets import Credentials, TargetFactory, check_credentials, credentials_of, named_after, targets_of
from .._values.config import PoolConfig
from .._values.listener import Listener
from .interceptors import add_interceptors
from .pool import ChannelPool

_INSECURE, _SECURE = (Constructor(grpc.aio, name) for name in ("insecure_channel", "secure_channel"))


def insecure_channel(
    target: str | Sequence[str],
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
    addresses: AddressSource | None = None,
) -> ChannelPool:
    """Creates a pool of insecure channels to `target`: a drop-in for `grpc.aio.insecure_channel`.

    Args:
        target: The server's address, as for `grpc.aio.insecure_channel`. If it has several, the connections are
            dealt out over them, unless a service config among the options names a policy of its own. Or several
            targets, in an order of preference: the first is used that has a ready connection.
        options: Channel options, for each of the connections.
        compression: The default compression of calls.
        interceptors: Applied once to each call, whatever connection serves it.
        config: The pool's settings.
        name: The pool's name in logs, events, errors and metrics; the target if not given.
        listeners: Notified of every event.
        addresses: A callable, or a coroutine function, that returns the current addresses, such as
            ``["10.0.0.7:50051"]``, for discovery other than DNS. It is called every 30 seconds while the pool is in
            use, and after a loss; a plain callable on a thread. If it raises, the last addresses stay. TLS verifies
            the name in `target`.

    Returns:
        A pool, which is a `grpc.aio.Channel`. It connects at first use, and is bound to the event loop of that.
    """
    caller = calling_code()
    if _INSECURE.is_creating():
        return _INSECURE.create_below(caller, target, options, compression, interceptors=interceptors)  # type: ignore[no-any-return]  # a channel
    targets = targets_of(target)

    def create(to: str, with_options: Options) -> grpc.aio.Channel:
        return _INSECURE.create(caller, to, with_options, compression)  # type: ignore[no-any-return]

    pool = ChannelPool(
        TargetFactory(targets, create, options, config, addresses),
        config,
        name=named_after(targets) if name is None else name,
        listeners=listeners,
    )
    pool._takes_call_credentials = False
    add_interceptors(pool, interceptors or ())
    return pool


def secure_channel(
    target: str | Sequence[str],
    credentials: Credentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
    addresses: AddressSource | None = None,
) -> ChannelPool:
    """Creates a pool of secure channels to `target`: a drop-in for `grpc.aio.secure_channel`.

    Args:
        target: As for `insecure_channel`.
        credentials: Credentials, or a callable that creates them, which is called for each connection. Use a callable
            for `grpc.compute_engine_channel_credentials`, which must not be shared between channels, and for
            certificates that are renewed (then `ChannelPool.refresh`).
        options: As for `insecure_channel`.
        compression: As for `insecure_channel`.
        interceptors: As for `insecure_channel`.
        config: As for `insecure_channel`.
        name: As for `insecure_channel`.
        listeners: As for `insecure_channel`.
        addresses: As for `insecure_channel`.

    Returns:
        A pool, which is a `grpc.aio.Channel`. It connects at first use, and is bound to the event loop of that.
    """
    caller = calling_code()
    if _SECURE.is_creating():
        return _SECURE.create_below(caller, target, credentials, options, compression, interceptors=interceptors)  # type: ignore[no-any-return]  # a channel
    check_credentials(credentials)
    targets = targets_of(target)

    def create(to: str, with_options: Options) -> grpc.aio.Channel:
        made = credentials_of(credentials)
        return _SECURE.create(caller, to, made, with_options, compression)  # type: ignore[no-any-return]

    pool = ChannelPool(
        TargetFactory(targets, create, options, config, addresses),
        config,
        name=named_after(targets) if name is None else name,
        listeners=listeners,
    )
    add_interceptors(pool, interceptors or ())
    return pool


looked_up: Final = LookUp(
    {"insecure_channel": (_INSECURE, insecure_channel), "secure_channel": (_SECURE, secure_channel)}
)
