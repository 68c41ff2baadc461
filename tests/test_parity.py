"""`grpcpool` and `grpcpool.aio` have the same names, parameters and docstrings, so that no feature reaches only one.

They are two programs. Where gRPC's own two worlds have different names or parameters, ours may differ, too: the
permitted differences are read from gRPC itself. All others are listed here, with the reason.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

import grpc
import pytest

import grpcpool
import grpcpool.aio
import grpcpool.testing
import grpcpool.testing.aio

pytestmark = pytest.mark.timeout(30)

_SHARED = {
    "Advice",
    "Verdict",
    "advise",
    # It replaces the constructors of both worlds.
    *("PatchReport", "Patched", "patched"),
    # Both share settings, figures, events and errors; `isolated` makes options for either.
    *("ChannelStats", "Listener", "Mode", "PoolConfig", "PoolStats", "isolated"),
    *("LeaseReleasedError", "PoolClosedError", "PoolError", "PoolExhaustedError", "PoolForkedError"),
    *("PoolOpenError", "PoolTimeoutError", "WrongEventLoopError"),
}
_SHARED_BY_TESTS = {"Codec", "Handler", "ManualClock", "aio", "manual_clock"}
# A call of asyncio's is one of four kinds, where a call of the other world is all of them at once; requests come in
# an object of their own.
_KINDS_OF_CALLS = {
    "FakeStreamStreamCall",
    "FakeStreamUnaryCall",
    "FakeUnaryStreamCall",
    "FakeUnaryUnaryCall",
    "Requests",
}
# Runs a fake call on the loop; not for tests.
_OF_LOOPS = {"handle"}

_CLASSES = [
    ("ChannelPool", grpcpool.ChannelPool, grpcpool.aio.ChannelPool),
    ("Lease", grpcpool.Lease, grpcpool.aio.Lease),
    ("FakeChannel", grpcpool.testing.FakeChannel, grpcpool.testing.aio.FakeChannel),
    ("FakeFactory", grpcpool.testing.FakeFactory, grpcpool.testing.aio.FakeFactory),
]
_FUNCTIONS = [
    ("insecure_channel", grpcpool.insecure_channel, grpcpool.aio.insecure_channel),
    ("secure_channel", grpcpool.secure_channel, grpcpool.aio.secure_channel),
    ("shared_channel", grpcpool.shared_channel, grpcpool.aio.shared_channel),
    ("error", grpcpool.testing.error, grpcpool.testing.aio.error),
]
_GRPCS: dict[str, Any] = {"insecure_channel": grpc.insecure_channel, "secure_channel": grpc.secure_channel}
_GRPCS_AIO: dict[str, Any] = {"insecure_channel": grpc.aio.insecure_channel, "secure_channel": grpc.aio.secure_channel}

# These block in one world and are awaited in the other; `acquire` is not a coroutine function, because it also opens
# an `async with` block.
_AWAITED = {"__aenter__", "__aexit__", "channel_ready", "close", "open", "wait_for_state_change"}

_SPECIAL = {"__init__", "__enter__", "__exit__", "__aenter__", "__aexit__"}


def _members(it: type) -> set[str]:
    return {name for name in dir(it) if not name.startswith("_") or name in _SPECIAL}


def _twins() -> dict[str, tuple[Any, Any]]:
    """Every function and method that both have, except those that are the same object."""
    twins: dict[str, tuple[Any, Any]] = {name: (sync, aio) for name, sync, aio in _FUNCTIONS}
    for name, sync, aio in _CLASSES:
        twins[name] = (sync, aio)
        for member in sorted(_members(sync) & _members(aio)):
            one, other = inspect.getattr_static(sync, member), inspect.getattr_static(aio, member)
            if one is not other and callable(one):
                twins[f"{name}.{member}"] = (getattr(sync, member), getattr(aio, member))
    return twins


_TWINS = _twins()
_every_twin = pytest.mark.parametrize("name", _TWINS)


# --- names ----------------------------------------------------------------------------------------------------------


def test_both_have_the_same_names() -> None:
    """`grpcpool.aio` offers every name of `grpcpool`, except those that both share."""
    assert set(grpcpool.__all__) - set(grpcpool.aio.__all__) == _SHARED
    assert set(grpcpool.aio.__all__) <= set(grpcpool.__all__)
    assert set(grpcpool.aio.__all__) == {
        "ChannelPool",
        "Lease",
        "insecure_channel",
        "secure_channel",
        "shared_channel",
    }


def test_both_have_the_same_fakes() -> None:
    """`grpcpool.testing.aio` offers every fake of `grpcpool.testing`."""
    sync, aio = set(grpcpool.testing.__all__), set(grpcpool.testing.aio.__all__)
    assert sync - aio == _SHARED_BY_TESTS
    assert aio - sync == _KINDS_OF_CALLS


@pytest.mark.parametrize(("name", "sync", "aio"), _CLASSES, ids=[name for name, *_ in _CLASSES])
def test_both_have_the_same_members(name: str, sync: type, aio: type) -> None:
    """A member that only one world has is a member that only gRPC's own channel of that world has."""
    only_sync, only_aio = _members(sync) - _members(aio), _members(aio) - _members(sync)
    if not issubclass(sync, grpc.Channel):
        assert (only_sync, only_aio) == (set(), set())
        return
    assert only_sync == _members(grpc.Channel) - _members(grpc.aio.Channel)
    assert only_aio == _members(grpc.aio.Channel) - _members(grpc.Channel)


def test_both_fake_calls_have_the_same_members() -> None:
    """Beyond the members of gRPC's own calls, the fake calls of both worlds have the same members."""
    # Not a member of the abstract classes, but of every call that gRPC makes.
    of_all = {"debug_error_string"}
    of_grpc = _members(grpc.Call) | _members(grpc.Future) | _members(grpc.RpcError) | {"add_callback"} | of_all
    of_grpc_aio = _members(grpc.aio.Call) | of_all
    kinds = (grpc.aio.UnaryUnaryCall, grpc.aio.UnaryStreamCall, grpc.aio.StreamUnaryCall, grpc.aio.StreamStreamCall)
    of_grpc_aio |= {member for kind in kinds for member in _members(kind)}
    sync = _members(grpcpool.testing.FakeCall) - of_grpc
    aio = _members(grpcpool.testing.aio.FakeCall) - of_grpc_aio
    assert {"finish", "fail"} <= sync
    assert aio - _OF_LOOPS == sync


def test_the_designs_members_are_there() -> None:
    """Both worlds have the members that the design names."""
    for pool, lease in ((grpcpool.ChannelPool, grpcpool.Lease), (grpcpool.aio.ChannelPool, grpcpool.aio.Lease)):
        assert {"acquire", "open", "close", "resize", "refresh", "stats", "closed", "name", "config"} <= _members(pool)
        assert {"release", "close", "discard", "created_at", "used_at"} <= _members(lease)


def test_they_are_grpcs_channels() -> None:
    """Each class is a channel of its own world only."""
    for _, sync, aio in _CLASSES[:3]:
        assert (grpc.Channel in sync.__mro__, grpc.aio.Channel in sync.__mro__) == (True, False)
        assert (grpc.Channel in aio.__mro__, grpc.aio.Channel in aio.__mro__) == (False, True)


def test_reprs_name_the_world() -> None:
    """The `repr` of both worlds differs only in the class's public name."""
    sync, aio = (
        grpcpool.ChannelPool(grpcpool.testing.FakeFactory(), name="a"),
        grpcpool.aio.ChannelPool(grpcpool.testing.aio.FakeFactory(), name="a"),
    )
    assert repr(aio) == repr(sync).replace("<grpcpool.", "<grpcpool.aio.")


# --- parameters -----------------------------------------------------------------------------------------------------


def _parameters(it: Any) -> dict[str, tuple[Any, Any]]:
    """Kind and default of each parameter, in order; a class as default counts by its name."""
    found = {}
    for name, parameter in inspect.signature(it).parameters.items():
        default = parameter.default
        found[name] = (parameter.kind, default.__name__ if inspect.isclass(default) else default)
    return found


def _grpcs_pair(name: str) -> tuple[Any, Any] | None:
    """The two functions of gRPC's own for this name, if there are two."""
    if name in _GRPCS:
        return _GRPCS[name], _GRPCS_AIO[name]
    member = name.rpartition(".")[2]
    if name.startswith(("ChannelPool.", "Lease.", "FakeChannel.")) and hasattr(grpc.Channel, member):
        return getattr(grpc.Channel, member), getattr(grpc.aio.Channel, member)
    return None


@_every_twin
def test_both_take_the_same_parameters(name: str) -> None:
    """Names, order, kinds and defaults are the same, except what gRPC's own asyncio twin takes in addition."""
    sync, aio = (_parameters(it) for it in _TWINS[name])
    pair = _grpcs_pair(name)
    extra = set() if pair is None else set(_parameters(pair[1])) - set(_parameters(pair[0]))
    if name == "shared_channel":
        # As those of the constructors.
        extra = {"interceptors"}
    if name == "FakeChannel.admit":
        # One fake channel makes the call itself, the other gets a maker for one of four kinds.
        extra = {"make"}
    assert {it: what for it, what in aio.items() if it not in extra or it in sync} == sync
    assert [it for it in aio if it in sync] == list(sync)


@pytest.mark.parametrize("name", _GRPCS)
def test_both_begin_as_grpcs_own(name: str) -> None:
    """The first parameters are gRPC's, in its order, so positional calls keep their meaning; others are by name."""
    for ours, theirs in ((getattr(grpcpool, name), _GRPCS[name]), (getattr(grpcpool.aio, name), _GRPCS_AIO[name])):
        of_ours, of_theirs = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        assert list(of_ours)[: len(of_theirs)] == list(of_theirs)
        for parameter in list(of_ours)[len(of_theirs) :]:
            assert of_ours[parameter].kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in of_theirs:
            assert of_ours[parameter].default == of_theirs[parameter].default


@pytest.mark.parametrize(("name", "aio"), [("ChannelPool", grpcpool.aio.ChannelPool), ("Lease", grpcpool.aio.Lease)])
def test_what_waits_is_awaited(name: str, aio: type) -> None:
    """Exactly the members that wait are coroutine functions."""
    coroutines = {
        member for member in _members(aio) if inspect.iscoroutinefunction(inspect.getattr_static(aio, member))
    }
    assert coroutines == {member for member in _AWAITED if member in _members(aio)}


@_every_twin
def test_the_sync_world_awaits_nothing(name: str) -> None:
    """No function or method of the sync world is a coroutine function."""
    assert not asyncio.iscoroutinefunction(_TWINS[name][0])


# --- docstrings -----------------------------------------------------------------------------------------------------


def _doc(it: Any) -> str:
    return inspect.getdoc(it) or ""


def _own_members() -> dict[str, Any]:
    """Each public class, function and member, of both worlds."""
    found: dict[str, Any] = {}
    for world, modules in (("", (grpcpool, grpcpool.testing)), ("aio.", (grpcpool.aio, grpcpool.testing.aio))):
        for module in modules:
            for name in module.__all__:
                it = getattr(module, name)
                if not inspect.isclass(it) and not inspect.isfunction(it):
                    continue
                found[f"{world}{name}"] = it
    for name, sync, aio in _CLASSES:
        for world, it in (("", sync), ("aio.", aio)):
            found |= {f"{world}{name}.{member}": inspect.getattr_static(it, member) for member in _members(it)}
    return found


_OWN = _own_members()


@pytest.mark.parametrize("name", _OWN)
def test_everything_says_what_it_does(name: str) -> None:
    """Each public name has a docstring, which begins with a sentence."""
    it = _OWN[name]
    doc = _doc(it)
    assert doc, f"{name} has no docstring"
    assert doc.split("\n\n")[0].rstrip().endswith((".", ":", "::")), doc


def _in_sync_words(doc: str) -> str:
    """A docstring of the asyncio world, in the words of the sync world."""
    doc = doc.replace("grpc.aio.", "grpc.").replace("grpcpool.aio.", "grpcpool.").replace("async with", "with")
    return re.sub(r"\s+", " ", doc)


def _first_line(doc: str) -> str:
    return _in_sync_words(doc.split("\n\n", maxsplit=1)[0])


@_every_twin
def test_the_twin_says_the_same(name: str) -> None:
    """A twin's docstring is the same in its world's words, begins the same, or says "Same as" with the other's name."""
    sync, aio = _TWINS[name]
    said, says = _doc(sync), _doc(aio)
    if name in _SAYS_ITS_OWN:
        return
    assert (
        _in_sync_words(says) == _in_sync_words(said)
        or _first_line(says) == _first_line(said)
        or f"Same as `grpcpool.{name}`" in says
    ), f"{said!r}\n{says!r}"


_SAYS_ITS_OWN = {
    # It gets a maker of the call, and raises its own world's error.
    "FakeChannel.admit",
    # It has the grace of gRPC's own asyncio channel.
    "FakeChannel.close",
}


@_every_twin
def test_the_twin_names_its_own_world(name: str) -> None:
    """No docstring refers its reader to the channels of the other world."""
    sync, aio = _TWINS[name]
    assert "grpc.aio" not in _doc(sync)
    if not re.search(r"Same as `grpcpool\.", _doc(aio)):
        assert not re.search(r"`grpc\.(Channel|insecure_channel|secure_channel)\b", _doc(aio)), _doc(aio)


def _section(doc: str, title: str) -> set[str]:
    """The names explained in a section of a Google-style docstring."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    return set(re.findall(r"^    (\w+):", found.group(1), re.MULTILINE)) if found else set()


@_every_twin
def test_both_explain_the_same_arguments_and_errors(name: str) -> None:
    """Twins explain the same arguments, each only its own parameters; the asyncio twin may raise more."""
    sync, aio = _TWINS[name]
    if name in _SAYS_ITS_OWN:
        return
    for it in (sync, aio):
        explained = _section(_doc(it), "Args")
        assert explained <= set(_parameters(it))
        if explained:
            assert explained == set(_parameters(it)) - {"self"}
    extra = set(_parameters(aio)) - set(_parameters(sync))
    assert _section(_doc(aio), "Args") - extra == _section(_doc(sync), "Args")
    assert _section(_doc(aio), "Raises") >= _section(_doc(sync), "Raises")


def test_the_comparison_finds_what_differs() -> None:
    """The comparison finds a twin that lacks a parameter or has another docstring."""

    def sync(timeout: float | None = None, *, streams: int = 1) -> None:
        """Waits.

        Args:
            timeout: Seconds.
            streams: How many.
        """

    async def aio(timeout: float | None = 1) -> None:  # noqa: ASYNC109 -- a signature to be compared
        """Does not."""

    assert _parameters(sync) != _parameters(aio)
    assert set(_parameters(sync)) - set(_parameters(aio)) == {"streams"}
    assert _first_line(_doc(sync)) != _first_line(_doc(aio))
    assert _section(_doc(sync), "Args") == {"timeout", "streams"}
    assert {"ChannelPool.acquire", "ChannelPool.close", "Lease.close", "secure_channel", "FakeFactory"} <= set(_TWINS)


# --- errors about arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [grpcpool.ChannelPool, grpcpool.aio.ChannelPool], ids=["sync", "aio"])
def test_errors_about_arguments_name_the_pool(pool: Any) -> None:
    """A missing or unknown argument raises Python's own error, with the class that the caller wrote."""
    with pytest.raises(TypeError, match=r"^ChannelPool\(\) missing 1 required positional argument: 'factory'$"):
        pool()
    with pytest.raises(TypeError, match=r"^ChannelPool\(\) got an unexpected keyword argument 'nme'"):
        pool(list, nme="orders")
    with pytest.raises(TypeError, match=r"^ChannelPool\(\) takes from 2 to 3 positional arguments but 4 were given$"):
        pool(list, None, "orders")
