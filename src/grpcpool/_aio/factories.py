"""Pools over a target: replacements for `grpc.aio.insecure_channel` and `grpc.aio.secure_channel`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import CodeType
from typing import Any, Final

import grpc

from .._shared.constructors import NAMES, Constructor, LookUp, calling_code
from .._shared.destination import AddressSource
from .._shared.recipe import Credentials, Recipe
from .._shared.targets import TargetFactory, check_credentials, creator, named_after, recipe_of
from .._values.config import PoolConfig
from .._values.listener import Listener
from .interceptors import add_interceptors
from .pool import ChannelPool

_INSECURE, _SECURE = (Constructor(grpc.aio, name) for name in NAMES)


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

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A target or an option is not valid, or `config` needs addresses that the pool does not deal out.
    """
    caller = calling_code()
    if _INSECURE.is_creating():
        return _INSECURE.create_below(caller, target, options, compression, interceptors=interceptors)  # type: ignore[no-any-return]  # a channel
    recipe = recipe_of(
        target, None, options, compression, config=config, name=name, listeners=listeners, addresses=addresses
    )
    return pool_of(recipe, caller, interceptors)


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

    Raises:
        TypeError: As for `insecure_channel`, or `credentials` are something else.
        ValueError: As for `insecure_channel`.
    """
    caller = calling_code()
    if _SECURE.is_creating():
        return _SECURE.create_below(caller, target, credentials, options, compression, interceptors=interceptors)  # type: ignore[no-any-return]  # a channel
    check_credentials(credentials)
    recipe = recipe_of(
        target, credentials, options, compression, config=config, name=name, listeners=listeners, addresses=addresses
    )
    return pool_of(recipe, caller, interceptors)


def pool_of(
    recipe: Recipe, caller: CodeType | None = None, interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None
) -> ChannelPool:
    """A pool with these arguments, which was created by the code `caller`."""
    if recipe.factory is not None:
        return ChannelPool(recipe.factory, recipe.config, name=recipe.name, listeners=recipe.listeners)
    factory = TargetFactory(recipe, creator(recipe, _INSECURE, _SECURE, caller))
    name = named_after(recipe.targets) if recipe.name is None else recipe.name
    pool = ChannelPool(factory, recipe.config, name=name, listeners=recipe.listeners)
    pool._recipe = recipe
    pool._takes_call_credentials = recipe.credentials is not None
    add_interceptors(pool, interceptors or ())
    return pool


CONSTRUCTORS: Final = (_INSECURE, _SECURE)
"""gRPC's, which may be replaced."""

looked_up: Final = LookUp(
    {"insecure_channel": (_INSECURE, insecure_channel), "secure_channel": (_SECURE, secure_channel)}
)
