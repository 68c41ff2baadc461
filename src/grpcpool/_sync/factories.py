"""Pools over a target: replacements for `grpc.insecure_channel` and `grpc.secure_channel`."""

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
from .pool import ChannelPool

_INSECURE, _SECURE = (Constructor(grpc, name) for name in ("insecure_channel", "secure_channel"))


def insecure_channel(
    target: str | Sequence[str],
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
    addresses: AddressSource | None = None,
) -> ChannelPool:
    """Creates a pool of insecure channels to `target`: a drop-in for `grpc.insecure_channel`.

    Args:
        target: The server's address, as for `grpc.insecure_channel`. If it has several, the connections are
            dealt out over them, unless a service config among the options names a policy of its own. Or several
            targets, in an order of preference: the first is used that has a ready connection.
        options: Channel options, for each of the connections.
        compression: The default compression of calls.
        config: The pool's settings.
        name: The pool's name in logs, events, errors and metrics; the target if not given.
        listeners: Notified of every event.
        addresses: A callable that returns the current addresses, such as ``["10.0.0.7:50051"]``, for discovery other
            than DNS. It is called on a thread of its own, every 30 seconds while the pool is in use, and after a loss.
            If it raises, the last addresses stay. TLS verifies the name in `target`.

    Returns:
        A pool, which is a `grpc.Channel`. It connects at first use: in a process that is forked before that, as under
        ``gunicorn --preload``, gRPC has not even been started.
    """
    caller = calling_code()
    if _INSECURE.is_creating():
        return _INSECURE.create_below(caller, target, options, compression)  # type: ignore[no-any-return]  # a channel
    targets = targets_of(target)

    def create(to: str, with_options: Options) -> grpc.Channel:
        return _INSECURE.create(caller, to, with_options, compression)  # type: ignore[no-any-return]

    return ChannelPool(
        TargetFactory(targets, create, options, config, addresses),
        config,
        name=named_after(targets) if name is None else name,
        listeners=listeners,
    )


def secure_channel(
    target: str | Sequence[str],
    credentials: Credentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    config: PoolConfig | None = None,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
    addresses: AddressSource | None = None,
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
        addresses: As for `insecure_channel`.

    Returns:
        A pool, which is a `grpc.Channel`. It connects at first use: in a process that is forked before that, as under
        ``gunicorn --preload``, gRPC has not even been started.
    """
    caller = calling_code()
    if _SECURE.is_creating():
        return _SECURE.create_below(caller, target, credentials, options, compression)  # type: ignore[no-any-return]  # a channel
    check_credentials(credentials)
    targets = targets_of(target)

    def create(to: str, with_options: Options) -> grpc.Channel:
        made = credentials_of(credentials)
        return _SECURE.create(caller, to, made, with_options, compression)  # type: ignore[no-any-return]

    return ChannelPool(
        TargetFactory(targets, create, options, config, addresses),
        config,
        name=named_after(targets) if name is None else name,
        listeners=listeners,
    )


looked_up: Final = LookUp(
    {"insecure_channel": (_INSECURE, insecure_channel), "secure_channel": (_SECURE, secure_channel)}
)
