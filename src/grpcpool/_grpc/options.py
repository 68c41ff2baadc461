"""Channel options: what gives each channel a connection of its own, and shares several addresses out.

gRPC shares a connection between channels whose target and arguments are equal. Any unique argument separates
them; gRPC ignores names that it does not know. And where a target has several addresses, gRPC's default policy has
every channel go to the first; `pick_first` with `shuffleAddressList` (gRFC A62) has each begin at a random one.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Options = tuple[tuple[str, Any], ...]

_CONNECTION = "grpcpool.connection"
_SERVICE_CONFIG = "grpc.service_config"
_SHUFFLED: list[dict[str, Any]] = [{"pick_first": {"shuffleAddressList": True}}]

_POLICY = "grpc.lb_policy_name"
_AUTHORITY = "grpc.default_authority"
_TLS_NAME = "grpc.ssl_target_name_override"
# The time for one attempt to connect, though its name says something else, and what it is by default.
_ATTEMPT, _DEFAULT_ATTEMPT = "grpc.min_reconnect_backoff_ms", 20.0
_LONGEST_BACKOFF = "grpc.max_reconnect_backoff_ms"
_INTERVAL = "grpc.dns_min_time_between_resolutions_ms"
_DEFAULT_INTERVAL = 30.0

# In the order in which gRPC looks at them.
_PROXIES, _NO_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")

_numbers = itertools.count(1)

# gRPC takes this one out by its name, and never looks at the value.
_OF_PYTHON = "SingleThreadedUnaryStream"

_SMALLEST_INT, _LARGEST_INT = -(2**31), 2**31 - 1


def check_options(options: Iterable[tuple[Any, Any]], compression: Any) -> None:
    """Checks options and the default compression of a channel as gRPC does when it creates one, with its texts.

    Raises:
        TypeError: A name is not text, or a value is neither text nor a number (nor what a pointer is for gRPC).
        ValueError: The compression is not a number, or text cannot be encoded.
        OverflowError: A number is too large.
    """
    for name, value in options:
        if name == _OF_PYTHON:
            continue
        if isinstance(name, str):
            name.encode()
        elif not (name is None or isinstance(name, bytes)):
            raise TypeError(f"Expected str, not {type(name)}")
        _check_value(value)
    if compression:
        _check_int(int(compression))


def _check_value(value: Any) -> None:
    if isinstance(value, int):
        _check_int(value)
    elif isinstance(value, str):
        value.encode()
    elif not isinstance(value, bytes):
        if not hasattr(value, "__int__"):
            raise TypeError(f"Expected int, bytes, or behavior, got {type(value)}")
        # The address of a pointer.
        int(value)


def _check_int(value: int) -> None:
    if not _SMALLEST_INT <= value <= _LARGEST_INT:
        raise OverflowError("value too large to convert to int")


def isolated(options: Iterable[tuple[str, Any]] = ()) -> Options:
    """Channel options that give one channel a connection of its own. Call it again for each channel.

    Besides keeping channels of a pool apart, the unique argument frees a new channel from the reconnect backoff of
    one that failed, and, as it holds the process id, a forked child from its parent.

    Args:
        options: Further options, passed on. They may be of an earlier call: what that has added is replaced.

    Returns:
        The options, for any of gRPC's constructors of channels.
    """
    # If there are several of one name, gRPC goes by the first.
    others = (option for option in options if option[0] != _CONNECTION)
    return (*others, (_CONNECTION, f"{os.getpid()}-{next(_numbers)}"))


def first_of(options: Iterable[tuple[str, Any]], name: str) -> Any:
    """The value of an option; if there are several, the first, as for gRPC. `None` if there is none."""
    return next((value for key, value in options if key == name), None)


def resolution_interval(options: Iterable[tuple[str, Any]]) -> float:
    """Seconds between two look-ups of a name: gRPC's option for that, or 30."""
    given = first_of(options, _INTERVAL)
    return given / 1000 if isinstance(given, int | float) and given > 0 else _DEFAULT_INTERVAL


def has_policy(options: Iterable[tuple[str, Any]]) -> bool:
    """Whether the options name a load-balancing policy, or have the service config looked up in the DNS."""
    options = [*options]
    if any(name == _POLICY for name, _ in options) or first_of(options, "grpc.service_config_disable_resolution") == 0:
        return True
    config = _service_config(options)
    return config is not None and ("loadBalancingConfig" in config or "loadBalancingPolicy" in config)


def has_retries(options: Iterable[tuple[str, Any]]) -> bool:
    """Whether gRPC itself may make several attempts at a call, by the service config among the options."""
    config = first_of(options, _SERVICE_CONFIG)
    return isinstance(config, str | bytes) and any(policy in str(config) for policy in ("retryPolicy", "hedgingPolicy"))


def uses_proxy(host: str, options: Iterable[tuple[str, Any]], environ: Mapping[str, str]) -> bool:
    """Whether gRPC connects to `host` through an HTTP proxy, which looks the name up itself."""
    options = [*options]
    if first_of(options, "grpc.http_proxy") or first_of(options, "grpc.address_http_proxy"):
        return True
    if first_of(options, "grpc.enable_http_proxy") == 0 or not any(environ.get(name) for name in _PROXIES):
        return False
    spared = next((text for name in _NO_PROXIES if (text := environ.get(name))), "")
    ends = [end.strip().lower() for end in spared.split(",")]
    return not any(end and host.lower().endswith(end) for end in ends)


def to_one_address(
    options: Iterable[tuple[str, Any]], authority: str | None, health_service: str | None = None
) -> Options:
    """The options of a channel to one of the addresses of a target.

    Args:
        options: Those of the target.
        authority: The target's name: TLS verifies it, not the address. The user's own options go first.
        health_service: The service whose health gRPC watches; `None` for none. It takes a policy other than
            `pick_first`, with which gRPC does not watch.
    """
    given = (*options,)
    if health_service is not None and first_of(given, _LONGEST_BACKOFF) is None:
        # Connections to servers that are not healthy stay, and gRPC alone reconnects them.
        given = (*given, (_LONGEST_BACKOFF, 10_000))
    if authority is not None and first_of(given, _AUTHORITY) is None and first_of(given, _TLS_NAME) is None:
        given = (*given, (_AUTHORITY, authority))
    if health_service is None:
        return given
    config = {
        **(_service_config(given) or {}),
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": health_service},
    }
    return (*(option for option in given if option[0] != _SERVICE_CONFIG), (_SERVICE_CONFIG, json.dumps(config)))


def with_attempts_within(options: Iterable[tuple[str, Any]], seconds: float) -> Options:
    """The options, with each of gRPC's attempts to connect bounded by `seconds`, unless they have a bound themselves.

    A call on a channel that is connecting waits for the end of the attempt. gRPC gives the first at least a second.
    """
    given = (*options,)
    if seconds >= _DEFAULT_ATTEMPT or first_of(given, _ATTEMPT) is not None:
        return given
    return (*given, (_ATTEMPT, round(1000 * seconds)))


def _service_config(options: Iterable[tuple[str, Any]]) -> dict[str, Any] | None:
    """The service config among the options; `None` if there is none that gRPC would take."""
    try:
        config = json.loads(first_of(options, _SERVICE_CONFIG))
    except (TypeError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def shared_out(options: Sequence[tuple[str, Any]] | None) -> Options:
    """The options, with several addresses shared out, unless their own service config names a policy.

    A service config that is not JSON, or not an object, is left to gRPC to complain about.
    """
    given = tuple(options or ())
    if any(name == _POLICY for name, _ in given):
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
