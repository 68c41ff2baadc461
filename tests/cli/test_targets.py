"""Targets in gRPC's syntax."""

from __future__ import annotations

import pytest

from grpcpool.cli._errors import UsageError
from grpcpool.cli._target import Address, parse_target


@pytest.mark.parametrize(
    ("text", "addresses", "authority"),
    [
        ("10.0.0.7:50051", ["10.0.0.7:50051"], "10.0.0.7:50051"),
        ("10.0.0.7", ["10.0.0.7:443"], "10.0.0.7:443"),
        ("[::1]:50051", ["[::1]:50051"], "[::1]:50051"),
        ("::1", ["[::1]:443"], "[::1]:443"),
        ("ipv4:10.0.0.7:1,10.0.0.8:2", ["10.0.0.7:1", "10.0.0.8:2"], "10.0.0.7:1"),
        ("ipv6:[::1]:50051", ["[::1]:50051"], "[::1]:50051"),
        ("unix:/run/s.sock", ["unix:/run/s.sock"], "localhost"),
        ("unix:///run/s.sock", ["unix:/run/s.sock"], "localhost"),
        ("unix:s.sock", ["unix:s.sock"], "localhost"),
        ("unix-abstract:s", ["unix-abstract:s"], "localhost"),
    ],
)
def test_addresses_in_the_target(text: str, addresses: list[str], authority: str) -> None:
    """They are not resolved; the first is the authority."""
    target = parse_target(text)
    assert [str(address) for address in target.addresses()] == addresses
    assert target.authority == authority
    assert not target.is_name


@pytest.mark.parametrize(
    "text", ["orders:50051", "dns:orders:50051", "dns:///orders:50051", "dns://8.8.8.8/orders:50051"]
)
def test_names(text: str) -> None:
    """A name must be resolved, with and without the scheme."""
    target = parse_target(text)
    assert (target.host, target.port, target.authority, target.is_name) == ("orders", 50051, "orders:50051", True)


def test_a_name_resolves_to_each_address_once() -> None:
    """`localhost` resolves to addresses without duplicates."""
    addresses = parse_target("localhost:1").addresses()
    assert len(set(addresses)) == len(addresses) > 0
    assert Address("127.0.0.1", 1) in addresses


@pytest.mark.parametrize(
    ("text", "with_port"),
    [
        ("orders", "orders (port 443)"),
        ("dns:///orders", "dns:///orders (port 443)"),
        ("orders443", "orders443 (port 443)"),
        ("orders:50051", "orders:50051"),
        ("unix:/run/orders", "unix:/run/orders"),
    ],
)
def test_the_port_that_is_assumed_is_named(text: str, with_port: str) -> None:
    """Errors name the port that was tried, if the target does not."""
    assert parse_target(text).with_port == with_port


def test_a_port_alone_is_not_a_target() -> None:
    """It is not taken for an IPv6 address."""
    with pytest.raises(UsageError, match=r"^:50051: not a valid target"):
        parse_target(":50051")


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_target_is_visible_in_its_error(text: str) -> None:
    """The error quotes it."""
    with pytest.raises(UsageError, match=r"^'\s*': the target is empty"):
        parse_target(text)
