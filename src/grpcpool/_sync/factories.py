"""Pools over a target: replacements for `grpc.insecure_channel` and `grpc.secure_channel`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import CodeType
from typing import Any, Final

import grpc

from .._shared.constructors import INSECURE, SECURE, LookUp, calling_code
from .._shared.destination import AddressSource
from .._shared.recipe import Credentials, Recipe
from .._shared.targets import TargetFactory, check_credentials, creator, named_after, recipe_of
from .._values.config import PoolConfig
from .._values.listener import Listener
from .pool import ChannelPool


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

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A target or an option is not valid, or `config` needs addresses that the pool does not deal out.
    """
    caller = calling_code()
    if INSECURE.is_creating():
        return INSECURE.create_below(caller, target, options, compression)  # type: ignore[no-any-return]  # a channel
    recipe = recipe_of(
        target, None, options, compression, config=config, name=name, listeners=listeners, addresses=addresses
    )
    return pool_of(recipe, caller)


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

    Raises:
        TypeError: As for `insecure_channel`, or `credentials` are something else.
        ValueError: As for `insecure_channel`.
    """
    caller = calling_code()
    if SECURE.is_creating():
        return SECURE.create_below(caller, target, credentials, options, compression)  # type: ignore[no-any-return]  # a channel
    check_credentials(credentials)
    recipe = recipe_of(
        target, credentials, options, compression, config=config, name=name, listeners=listeners, addresses=addresses
    )
    return pool_of(recipe, caller)


def pool_of(recipe: Recipe, caller: CodeType | None = None) -> ChannelPool:
    """A pool with these arguments, which was created by the code `caller`."""
    if recipe.factory is not None:
        return ChannelPool(recipe.factory, recipe.config, name=recipe.name, listeners=recipe.listeners)
    factory = TargetFactory(recipe, creator(recipe, INSECURE, SECURE, caller))
    name = named_after(recipe.targets) if recipe.name is None else recipe.name
    pool = ChannelPool(factory, recipe.config, name=name, listeners=recipe.listeners)
    pool._recipe = recipe
    return pool


CONSTRUCTORS: Final = (INSECURE, SECURE)
"""gRPC's, which may be replaced."""

looked_up: Final = LookUp(
    {"insecure_channel": (INSECURE, insecure_channel), "secure_channel": (SECURE, secure_channel)}
)
