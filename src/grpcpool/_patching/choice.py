"""Which channels become pools, and with which settings: the `targets` of `grpcpool.patched`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._values.config import PoolConfig

Targets = str | Iterable[str] | Mapping[str, PoolConfig | None] | Callable[[str], Any] | None
"""Globs, a mapping from globs to settings, or a callable that returns settings, or whether there is to be a pool."""

NOT_POOLED = object()


class Choice:
    """Chooses the settings of the pool for a target."""

    def __init__(self, targets: Targets, config: PoolConfig | None) -> None:
        """`config` is for those that `targets` has no settings for.

        Raises:
            TypeError: `targets` or `config` is something else.
        """
        _check(config, "config")
        self._config = config
        self._ask: Callable[[str], Any] | None = None
        self._globs: list[tuple[str, PoolConfig | None]] = []
        if targets is None:
            self._globs = [("*", config)]
        elif callable(targets):
            self._ask = targets
        elif isinstance(targets, Mapping):
            self._globs = [(glob, config if own is None else own) for glob, own in targets.items()]
        elif isinstance(targets, str):
            self._globs = [(targets, config)]
        elif isinstance(targets, Iterable):
            self._globs = [(glob, config) for glob in targets]
        else:
            raise TypeError(f"targets must be globs, a mapping from globs to PoolConfig or a callable, not {targets!r}")
        for glob, own in self._globs:
            if not isinstance(glob, str):
                raise TypeError(f"targets must be globs, such as 'orders.*:50051', not {glob!r}")
            _check(own, f"targets[{glob!r}]")

    def __call__(self, target: str) -> Any:
        """The settings of the pool, `None` for the defaults; `NOT_POOLED` if the channel is to be a plain one."""
        if self._ask is not None:
            answer = self._ask(target)
            if isinstance(answer, PoolConfig):
                return answer
            return self._config if answer else NOT_POOLED
        return next((config for glob, config in self._globs if _fits(target, glob)), NOT_POOLED)


def _fits(target: str, glob: str) -> bool:
    # Brackets are those of an IPv6 address. Unescaped, they would stand for one of the characters between them.
    return fnmatch.fnmatchcase(target, glob.replace("[", "[[]"))


def _check(config: object, what: str) -> None:
    if config is not None and not isinstance(config, PoolConfig):
        raise TypeError(f"{what} must be a PoolConfig, not {config!r}")
