"""Pools spare their asyncio calls some of what gRPC does for each; where its names are others, they do not."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from aio_calls.support import cancelled, world
from grpc_facts.programs import UNCHANGED, Changed, renamed
from grpcpool._grpc import lean_aio_multicallables
from grpcpool._grpc.lean_aio_multicallables import make_lean
from grpcpool._grpc.version import GRPC_RELEASE
from support import call_server
from support.aio_pools import at_rest
from support.aio_ways import UNARY, WAYS, Way
from support.call_server import CallServer, new_tag
from support.loops import in_loop

pytestmark = pytest.mark.timeout(120)

# GRPC's channels know their calls since 1.83.
_KNOWS = GRPC_RELEASE >= (1, 83)

_CHANGES = {
    "as it is": UNCHANGED,
    **{name: renamed(name) for name in ("_python_channel", "_register_call", "_active_calls", "_init_metadata")},
}
_IF_KNOWN = pytest.mark.skipif(not _KNOWS, reason="channels do not know their calls")
_EACH_CHANGE = pytest.mark.parametrize("changed", _CHANGES.values(), ids=_CHANGES)


@_EACH_CHANGE
def test_without_grpcs_names(calls: CallServer, changed: Changed) -> None:
    """Calls of all kinds work, without a warning."""
    ended = changed.run("aio_calls", calls.target)
    assert (ended.result, ended.warnings) == ("PERMISSION_DENIED", [])


@pytest.mark.parametrize("changed", [UNCHANGED, renamed("_init_metadata")], ids=["as it is", "_init_metadata"])
def test_the_metadata_of_calls(calls: CallServer, changed: Changed) -> None:
    """The server sees what it would see without a pool."""
    ours = [("x-key", "1"), ("x-key", "2")]
    seen = [
        [tuple(pair) for pair in each if pair[0].startswith("x-")]
        for each in map(json.loads, changed.run("aio_metadata", calls.target).result)
    ]
    assert seen == [[]] * 6 + [ours] * 3 + [[("x-key", "3")]] * 3


@pytest.mark.parametrize("below", [False, pytest.param(True, marks=_IF_KNOWN)])
@_EACH_CHANGE
def test_calls_end_when_their_channel_is_closed(calls: CallServer, changed: Changed, below: bool) -> None:
    """Whether the pool or its user closes it."""
    known, codes = changed.run("aio_closed", calls.target, below).result
    assert codes == ["CANCELLED"]
    assert known == (0 if changed is _CHANGES["_active_calls"] or not _KNOWS else 6)


@pytest.mark.parametrize(("name", "value"), [("_arguments", lambda _: ()), ("_UNARY", "")], ids=["order", "class"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_without_grpcs_code(
    calls: CallServer, monkeypatch: pytest.MonkeyPatch, way: Way, name: str, value: Any
) -> None:
    """Calls work, and keep the messages of cancellations, if gRPC's code has other arguments or another class."""
    monkeypatch.setattr(lean_aio_multicallables, name, value)
    lean_aio_multicallables._changed.cache_clear()

    @in_loop
    async def test() -> None:
        async with world(calls) as at:
            pool = await at.pool()
            assert await way.whole(pool) == await way.whole(at.plain)
            tag = new_tag()
            assert await cancelled(way.whole(pool, f"hold:{tag}"), at, tag) == ("as the test wants",)
            await at_rest(pool)

    test()
    lean_aio_multicallables._changed.cache_clear()


class _Traced:
    """Stands for a method, as tracers do: it has all that the method has."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else functools.partial(self._call, instance)

    def _call(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self.method(*arguments, **named)


@in_loop
async def test_a_tracer_of_grpcs_code(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others put in the place of gRPC's code is run as well."""
    async with world(calls) as at:
        kind = type(at.plain.unary_unary(call_server.UU))
        traced = _Traced(kind.__call__)
        monkeypatch.setattr(kind, "__call__", traced)
        pool = await at.pool()
        assert await UNARY.whole(pool) == b"0"
        assert traced.calls == 1


@_IF_KNOWN
@in_loop
async def test_only_the_calls_of_a_channel_are_noted(calls: CallServer) -> None:
    """A set in which the channel does not find its calls gets none."""
    async with world(calls) as at:
        multicallable = at.plain.unary_unary(call_server.UU)
        others: set[object] = set()
        assert not make_lean(multicallable, others)
        call = multicallable(b"ok")
        assert others == set()
        assert await call == b"0"


@pytest.mark.parametrize("how", ["close", "refresh", pytest.param("below", marks=_IF_KNOWN)])
def test_a_callback_of_others_that_raises(calls: CallServer, how: str) -> None:
    """Calls of the pool end with their connection, whatever callbacks the calls of `prime` have."""
    assert UNCHANGED.run("aio_closed_beside_others", calls.target, how).result == ["CANCELLED"] * len(WAYS)
