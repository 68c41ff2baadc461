"""Asyncio pools over a gRPC whose private names are others: they work, or say what is lost."""

from __future__ import annotations

import pytest

from grpc_facts.programs import UNCHANGED, Changed, attribute_renamed, renamed
from grpc_facts.renaming import NEW
from support.call_server import CallServer

pytestmark = pytest.mark.timeout(120)

_MODULE_RENAMED = Changed(
    {r"\bfrom \._call import\b": "from ._calls import", r"\bfrom \. import _call\b": "from . import _calls as _call"},
    {"grpc.aio._calls": "grpc.aio._call"},
)


def test_nothing_is_missing_in_this_release(calls: CallServer) -> None:
    """With gRPC as it is the pool warns of nothing, and ends calls that gRPC cannot send."""
    ended = UNCHANGED.run("aio_calls", calls.target)
    assert (ended.result, ended.warnings) == ("PERMISSION_DENIED", [])
    for stream in (False, True):
        ended = UNCHANGED.run("aio_unsendable", calls.target, stream)
        assert ended.result[0] is True
        assert ended.warnings == []


@pytest.mark.parametrize("with_module", [False, True])
def test_calls_without_a_private_name(calls: CallServer, with_module: bool) -> None:
    """Without the call below, the status is asked for in public; the pool says so, if it knows the call for gRPC's."""
    grpc = attribute_renamed("_cython_call")
    # Its finalizer looks for it by a text.
    patterns = {**grpc.patterns, r"\"_cython_call\"": f'"{NEW}cython_call"'}
    if with_module:
        grpc = Changed({**patterns, **_MODULE_RENAMED.patterns}, _MODULE_RENAMED.modules)
    else:
        grpc = Changed(patterns)
    ended = grpc.run("aio_calls", calls.target)
    assert ended.result == "PERMISSION_DENIED"
    assert ended.warned_of("_cython_call") is not with_module


def test_calls_without_is_ok(calls: CallServer) -> None:
    """So it is if the call below lacks but `is_ok`."""
    ended = Changed(hidden=("is_ok",)).run("aio_calls", calls.target)
    assert ended.result == "PERMISSION_DENIED"
    assert ended.warned_of("is_ok")


@pytest.mark.parametrize(("name", "stream"), [("_call_response", False), ("_preparation", True)])
def test_calls_that_cannot_be_sent(calls: CallServer, name: str, stream: bool) -> None:
    """A call that gRPC cannot send fails when it is awaited; one that is not stays, and a warning says so."""
    grpc = renamed(name)
    expected = UNCHANGED.run("aio_unsendable", calls.target, stream).result
    ended = grpc.run("aio_unsendable", calls.target, stream)
    assert ended.result == [False, expected[1]]
    assert ended.warned_of(name)
    assert grpc.run("aio_calls", calls.target).result == "PERMISSION_DENIED"
