"""The arguments of a pool over a target, and where it leads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any, Final

import grpc

from .._grpc.options import (
    Options,
    check_options,
    has_retries,
    isolated,
    shared_out,
    to_one_address,
    uses_proxy,
    with_attempts_within,
)
from .._values.config import PoolConfig
from .._values.listener import Listener, checked_listeners
from .constructors import Constructor
from .destination import AddressSource, address_of, destination_of, target_to
from .recipe import Credentials, Recipe

_PAIR: Final = 2


class TargetFactory:
    """A pool's factory of channels to its target, or to several targets in an order of preference."""

    __slots__ = ("_create", "_health_service", "_options", "addresses", "destinations", "retries", "targets")

    def __init__(self, recipe: Recipe, create: Callable[[str, Options], Any]) -> None:
        """Creates channels to the targets of `recipe`; `create` creates one to a target, with options.

        Raises:
            TypeError: `addresses` cannot be called.
            ValueError: The setting `health_service` needs dealt-out addresses, or `addresses` is given with several
                targets.
        """
        targets, options, addresses, config = recipe.targets, recipe.options, recipe.addresses, recipe.config
        if addresses is not None and not callable(addresses):
            raise TypeError(f"addresses must be a callable that returns addresses, not {addresses!r}")
        if addresses is not None and len(targets) > 1:
            raise ValueError("addresses = ...: has no effect with several targets: each has its own")
        # The pool complains of anything else.
        config = config if isinstance(config, PoolConfig) else PoolConfig()
        self.targets = targets
        self.addresses = addresses
        self.destinations = [destination_of(each, options, addresses, spread=config.spread) for each in targets]
        self._create = create
        # Whether gRPC itself may make several attempts at a call.
        self.retries = has_retries(options or ())
        self._options = with_attempts_within(options or (), config.connect_timeout)
        self._health_service = config.health_service
        for target, destination in zip(targets, self.destinations, strict=True):
            if destination.is_left_to_grpc and config.health_service is not None:
                raise ValueError(
                    f"PoolConfig.health_service = {config.health_service!r}: needs a target whose addresses the pool "
                    f"deals out; those of {target!r}, with these options, are left to gRPC"
                )

    def __call__(self, address: str | None = None, endpoint: int = 0) -> Any:
        """A new channel, to one address of a target if that is given."""
        target, destination = self.targets[endpoint], self.destinations[endpoint]
        deals = len(self.targets) > 1 or destination.addressing.every is not None
        as_given = address in (None, target) or not deals
        if as_given and self._health_service is None:
            return self._create(target, isolated(shared_out(self._options)))
        to = target if as_given else target_to(address or "")
        options = to_one_address(self._options, destination.authority, self._health_service)
        return self._create(to, isolated(options))

    def only_address(self, address: str) -> str | None:
        """The address, if it is one IP address with a port, and gRPC connects to that itself, not to a proxy."""
        only = address_of(address)
        if only is None or uses_proxy(only.rpartition(":")[0].strip("[]"), self._options, os.environ):
            return None
        return only


def creator(
    recipe: Recipe, insecure: Constructor, secure: Constructor, caller: CodeType | None
) -> Callable[[str, Options], Any]:
    """What creates the channels of a pool that was created by the code `caller`."""
    constructor = insecure if recipe.credentials is None else secure

    def create(to: str, with_options: Options) -> Any:
        credentials = () if recipe.credentials is None else (credentials_of(recipe.credentials),)
        return constructor.create(caller, to, *credentials, with_options, recipe.compression, by=recipe.constructor)

    return create


def targets_of(target: str | bytes | Sequence[str | bytes]) -> list[str]:
    """The targets that a pool is given: one, or several in an order of preference.

    Raises:
        TypeError: One of them is not a valid target. gRPC, too, raises at once.
        ValueError: There is none, or one is empty or given twice.
    """
    if isinstance(target, str | bytes) or not isinstance(target, Sequence):
        return [_text_of(target)]
    targets = [_text_of(each) for each in target]
    if not targets or not all(targets) or len(set(targets)) < len(targets):
        rule = "must be different targets, at least one, none of them empty, in an order of preference"
        raise ValueError(f"target = {target!r}: {rule}")
    return targets


def _text_of(target: object) -> str:
    if isinstance(target, bytes):
        # Undocumented, but gRPC accepts it.
        return target.decode(errors="backslashreplace")
    if not isinstance(target, str):
        raise TypeError(f"target must be a str, not {target!r}")
    return target


def named_after(targets: Sequence[str]) -> str:
    """The default name of a pool over these targets."""
    return ",".join(targets)


def recipe_of(
    target: str | bytes | Sequence[str | bytes],
    credentials: Credentials | None,
    options: Sequence[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
    *,
    config: PoolConfig | None,
    name: str | None,
    listeners: Iterable[Listener] = (),
    addresses: AddressSource | None = None,
    constructor: Callable[..., Any] | None = None,
) -> Recipe:
    """The recipe of a pool over a target, or several.

    Raises:
        TypeError: A target, a listener, an option or the compression is not a valid one. gRPC, too, raises at once.
        ValueError: There is no target, or one is empty or given twice; an option is not a pair; or the compression is
            not a number.
        OverflowError: A number among the options is too large for gRPC.
    """
    if isinstance(options, PoolConfig):
        raise TypeError("options are gRPC's: pass the settings by name, as in config=PoolConfig(...)")
    pairs = tuple(map(_pair, options or ()))
    check_options(pairs, compression)
    return Recipe(
        targets=tuple(targets_of(target)),
        credentials=credentials,
        options=pairs,
        compression=compression,
        config=config,
        name=name,
        listeners=checked_listeners(listeners),
        addresses=addresses,
        constructor=constructor,
    )


def _pair(option: object) -> tuple[str, Any]:
    # Text of two characters would be taken for a pair.
    if isinstance(option, Iterable) and not isinstance(option, str | bytes):
        parts = tuple(option)
        if len(parts) == _PAIR:
            return parts
    # gRPC's types.
    wrong = ValueError if isinstance(option, Iterable) else TypeError
    raise wrong(f"options must be pairs, such as [('grpc.keepalive_time_ms', 10_000)], not {option!r} in them")


def check_credentials(credentials: Credentials) -> None:
    """Checks that these are credentials, or a callable that may create them.

    Raises:
        TypeError: They are neither. The message does not show them: they may be the text of a key.
    """
    if not callable(credentials):
        _check(credentials, "credentials must be grpc.ChannelCredentials, or a callable that returns them")


def credentials_of(credentials: Credentials) -> grpc.ChannelCredentials:
    """The credentials for one more channel.

    Raises:
        TypeError: The callable returned something else.
    """
    if not callable(credentials):
        return credentials
    made = credentials()
    _check(made, "credentials() must return grpc.ChannelCredentials")
    return made


def _check(credentials: object, rule: str) -> None:
    if not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"{rule}, not {type(credentials).__name__}")
