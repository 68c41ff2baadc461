"""Channel options: what gives each channel a connection of its own, and shares several addresses out.

gRPC shares a connection between channels whose target and arguments are equal. Any unique argument separates
them; gRPC ignores names that it does not know. And where a target has several addresses, gRPC's default policy has
every channel go to the first; `pick_first` with `shuffleAddressList` (gRFC A62) has each begin at a random one.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

Options = tuple[tuple[str, Any], ...]

_CONNECTION = "grpcpool.connection"
_SERVICE_CONFIG = "grpc.service_config"
_SHUFFLED: list[dict[str, Any]] = [{"pick_first": {"shuffleAddressList": True}}]

_numbers = itertools.count(1)


def isolated(options: Iterable[tuple[str, Any]] = ()) -> Options:
    """Channel options that give one channel a connection of its own. Call it again for each channel.

    Besides keeping channels of a pool apart, the unique argument frees a new channel from the reconnect backoff of
    one that failed, and, as it holds the process id, a forked child from its parent.

    Args:
        options: Further options, passed on. They may be of an earlier call: what that has added is replaced.

    Returns:
        The options, for `grpc.insecure_channel` and its sisters.
    """
    # If there are several of one name, gRPC goes by the first.
    others = (option for option in options if option[0] != _CONNECTION)
    return (*others, (_CONNECTION, f"{os.getpid()}-{next(_numbers)}"))


def shared_out(options: Sequence[tuple[str, Any]] | None) -> Options:
    """The options, with several addresses shared out, unless their own service config names a policy.

    A service config that is not JSON, or not an object, is left to gRPC to complain about.
    """
    given = tuple(options or ())
    if any(name == "grpc.lb_policy_name" for name, _ in given):
        return given
    merged = {"loadBalancingConfig": _SHUFFLED}
    for name, value in given:
        if name == _SERVICE_CONFIG:
            try:
                merged = _merge(json.loads(value))
            except (TypeError, ValueError):
                return given
            # If there are several, gRPC goes by the first.
            break
    return (*(option for option in given if option[0] != _SERVICE_CONFIG), (_SERVICE_CONFIG, json.dumps(merged)))


def _merge(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise TypeError("the service config must be a JSON object")
    if "loadBalancingConfig" in config or "loadBalancingPolicy" in config:
        return config
    return {**config, "loadBalancingConfig": _SHUFFLED}
