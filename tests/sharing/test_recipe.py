"""Recipes: which pools are one, and what of a pool is sent to other processes."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import grpc
import pytest

import grpcpool
import grpcpool.aio
from grpcpool import Listener, PoolConfig
from grpcpool._shared.recipe import Recipe
from grpcpool._shared.targets import recipe_of
from sharing import parts
from support.fakes import FakeChannel, FakeFactory, aio
from support.loops import in_loop
from support.programs import run_python
from support.servers import ECHO

pytestmark = pytest.mark.timeout(30)


class _Pointer:
    """A value of an option that is neither text nor a number, and that cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __int__(self) -> int:
        return 0


_SECRET = b"-----BEGIN PRIVATE KEY----- of nobody"


def _recipe(**given: Any) -> Recipe:
    arguments: dict[str, Any] = dict.fromkeys(("credentials", "options", "compression", "config", "name"))
    return recipe_of(["orders:1"], **{**arguments, **given})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"options": [("a", 1)]}, {"options": (("a", 1),)}),
        ({"config": None}, {"config": PoolConfig()}),
        ({"credentials": parts.credentials}, {"credentials": parts.credentials}),
        ({"credentials": parts.Vault.credentials}, {"credentials": parts.Vault.credentials}),
        ({"listeners": [parts.LISTENER]}, {"listeners": (parts.LISTENER,)}),
        ({"config": PoolConfig(prime=parts.prime)}, {"config": PoolConfig(prime=parts.prime)}),
        ({"credentials": parts.UNHASHABLE}, {"credentials": parts.UNHASHABLE}),
        ({"addresses": parts.UNHASHABLE}, {"addresses": parts.UNHASHABLE}),
        *[({"config": config}, {"config": config}) for config in [PoolConfig(prime=parts.UNHASHABLE)]],
    ],
)
def test_equal_arguments_are_one_recipe(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A default is equal to its value given, a sequence to another of the same."""
    assert _recipe(**one).key() == _recipe(**other).key()
    assert hash(_recipe(**one).key()) == hash(_recipe(**other).key())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"options": [("a", 1)]}, {"options": [("a", True)]}),
        ({"options": [("a", 1), ("b", 1)]}, {"options": [("b", 1), ("a", 1)]}),
        ({"options": [("a", _Pointer())]}, {"options": [("a", _Pointer())]}),
        ({"config": PoolConfig(max_size=3)}, {"config": PoolConfig(max_size=4)}),
        ({"name": "a"}, {"name": None}),
        ({"compression": grpc.Compression.Gzip}, {}),
        ({"credentials": grpc.local_channel_credentials()}, {"credentials": grpc.local_channel_credentials()}),
        ({"credentials": grpc.local_channel_credentials()}, {}),
        ({"listeners": [Listener()]}, {"listeners": [Listener()]}),
        ({"credentials": parts.UNHASHABLE}, {"credentials": parts.Unhashable()}),
        ({"addresses": parts.addresses}, {}),
        ({"constructor": print}, {}),
    ],
)
def test_other_arguments_are_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Credentials and listeners are compared by identity, option values with their types."""
    assert _recipe(**one).key() != _recipe(**other).key()


@pytest.mark.parametrize(
    "options",
    [{"a": 1}, {"ab": 1}, [("a", 1, 2)], [1], "a=1", [("a", 1), "ab"]],
    ids=["dict", "dict of short names", "three", "number", "text", "text in a list"],
)
@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_options_are_pairs(world: Any, options: Any) -> None:
    """Anything else is refused at once, with an error of the type that gRPC's has."""
    of_grpc = TypeError if options == [1] else ValueError
    for create in (world.insecure_channel, world.shared_channel):
        with pytest.raises(of_grpc, match=r"options must be pairs, such as .*, not .* in them"):
            create("orders:1", options=options)


def test_pairs_may_be_of_any_kind() -> None:
    """As with gRPC: lists, and what an iterator returns."""
    pairs = (["a", 1], ["b", 2])
    assert _recipe(options=iter(pairs)).key() == _recipe(options=[("a", 1), ("b", 2)]).key()


def test_what_is_sent_arrives() -> None:
    """Callables and listeners are found by their names, at the other end; everything else is sent."""
    recipe = _recipe(
        credentials=parts.credentials,
        options=[("grpc.keepalive_time_ms", 10_000), ("text", "ä"), ("bytes", b"\0")],
        compression=grpc.Compression.Gzip,
        config=PoolConfig(max_size=3, prime=parts.prime),
        name="orders",
        listeners=[parts.LISTENER],
        addresses=parts.addresses,
    )
    assert Recipe.received(pickle.loads(pickle.dumps(recipe.sent()))) == recipe
    of_class = _recipe(credentials=parts.Vault.credentials)
    assert Recipe.received(of_class.sent()).key() == of_class.key()


def test_a_patch_is_not_sent() -> None:
    """The process that receives the pool may be patched in another way, or not at all."""
    assert Recipe.received(_recipe(constructor=print).sent()) == _recipe()


def _in_closure() -> Any:
    key = _SECRET
    return lambda: grpc.ssl_channel_credentials(private_key=key)


def _not_found(parameter: object) -> Any:  # a decorator that names what it makes after something else
    def made(*_: Any) -> object:
        return parameter

    made.__qualname__ = "credentials"
    made.__module__ = parts.__name__
    return made


@pytest.mark.parametrize(
    ("given", "part", "remedy"),
    [
        ({"credentials": grpc.local_channel_credentials()}, "credentials", "function at the top level"),
        ({"credentials": lambda: None}, "credentials", "function at the top level"),
        ({"credentials": _in_closure()}, "credentials", "function at the top level"),
        ({"credentials": _not_found(_SECRET)}, "credentials", "function at the top level"),
        ({"config": PoolConfig(prime=lambda _: None)}, "PoolConfig.prime", "function at the top level"),
        ({"addresses": lambda: ["10.0.0.7:1"]}, "addresses", "function at the top level"),
        ({"listeners": [Listener()]}, "listeners", "global variable"),
        ({"options": [("grpc.some", _Pointer())]}, "option 'grpc.some'", "text, numbers or bytes"),
    ],
    ids=["object", "lambda", "closure", "misnamed", "prime", "addresses", "listener", "option"],
)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_what_cannot_be_sent_is_named(given: dict[str, Any], part: str, remedy: str, dumps: Any) -> None:
    """Also by a pickler that could send it, because it may hold a secret. The message does not show it."""
    arguments = {name: value for name, value in given.items() if name != "credentials"}
    pools: list[Any] = []
    for world in (grpcpool, grpcpool.aio):
        if "credentials" in given:
            pools.append(world.secure_channel("orders:1", given["credentials"]))
        else:
            pools.append(world.insecure_channel("orders:1", **arguments))
    for pool in pools:
        with pytest.raises(TypeError, match=f"its {part}, of type .*{remedy}") as caught:
            dumps(pool)
        assert "BEGIN" not in str(caught.value)


def test_no_secret_is_sent() -> None:
    """A callable is sent as its name, also by a pickler that would send what it refers to."""
    pool = grpcpool.secure_channel("orders:1", parts.credentials)
    for sent in (pickle.dumps(pool), cloudpickle.dumps(pool), cloudpickle.dumps(lambda: pool)):
        assert b"credentials" in sent
        assert b"local_channel" not in sent


def test_factories_are_sent_if_they_can_be() -> None:
    """A factory of the user's: by the means of what pickles it."""
    assert pickle.loads(pickle.dumps(grpcpool.ChannelPool(parts.channel))).config == PoolConfig()
    with pytest.raises(TypeError, match=r"its factory, .*top level of a module, or a pickler such as cloudpickle"):
        pickle.dumps(grpcpool.ChannelPool(lambda: grpc.insecure_channel("orders:1")))
    assert cloudpickle.loads(cloudpickle.dumps(grpcpool.ChannelPool(lambda: grpc.insecure_channel("orders:1"))))


class _Making:
    def make(self) -> Any:
        """A factory."""
        return parts.channel()


_FACTORIES: dict[str, Any] = {
    "function": parts.channel,
    "lambda": lambda: parts.channel(),  # noqa: PLW0108 -- is sent as its code
    "partial": functools.partial(grpc.insecure_channel, "orders:1"),
    "method": _Making().make,
}


@pytest.mark.parametrize("factory", _FACTORIES.values(), ids=_FACTORIES.keys())
@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_all_tasks_of_a_process_get_one_pool(world: Any, factory: Any) -> None:
    """Also if the factory is another object each time that it arrives; and if a task sends the pool on."""
    sent = [cloudpickle.dumps(pool) for pool in [world.ChannelPool(factory)] * 2]
    program = """
import pickle, sys
import cloudpickle

tasks = [pickle.loads(bytes.fromhex(sent)) for sent in sys.argv[1:] * 2]
tasks.append(pickle.loads(cloudpickle.dumps(tasks[0])))
tasks[0].resize(max_size=7)
assert [task.config.max_size for task in tasks] == [7] * 5, tasks
"""
    run_python(program, *(each.hex() for each in sent))


@pytest.mark.parametrize("copied", [copy.copy, lambda pool: pickle.loads(pickle.dumps(pool))], ids=["copy", "pickle"])
@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_a_resized_pool_is_copied_with_its_bounds(world: Any, copied: Any) -> None:
    """A new pool begins with them. A handle's copy is on the same pool, which keeps its own."""
    pool = world.insecure_channel("orders:1", config=PoolConfig(max_size=8, max_age=7.0))
    pool.resize(min_size=2, max_size=3)
    handle = copied(pool)
    assert handle.config == pool.config == PoolConfig(min_size=2, max_size=3, max_age=7.0)
    handle.resize(max_size=4)
    another = copied(handle)
    another.resize(max_size=5)
    assert (pool.config.max_size, handle.config.max_size, copied(pool).config.max_size) == (3, 5, 5)


def test_other_factories_get_other_pools() -> None:
    """Each has its own mark."""
    factories = [functools.partial(grpc.insecure_channel, target) for target in ("orders:1", "users:1")]
    one, other = (pickle.loads(pickle.dumps(grpcpool.ChannelPool(factory))) for factory in factories)
    one.resize(max_size=7)
    assert other.config.max_size == 10


def test_what_the_other_process_does_not_have() -> None:
    """The error names it, and says what to do."""
    module = type(sys)("only_here")
    exec("def credentials(): pass", vars(module))  # noqa: S102 -- stands for a module of the sender
    sys.modules["only_here"] = module
    sent = pickle.dumps(grpcpool.secure_channel("orders:1", module.credentials))
    del module.credentials
    with pytest.raises(ImportError, match=r"only_here.credentials.*define it in a module that both processes import"):
        pickle.loads(sent)
    del sys.modules["only_here"]
    with pytest.raises(ModuleNotFoundError, match="only_here"):
        pickle.loads(sent)


def test_a_listener_is_sent_by_the_name_that_others_have() -> None:
    """Not by that in the main program, which a worker may not have. Modules that are imported lazily stay so."""
    program = """
import importlib.util, pickle, sys

spec = importlib.util.find_spec("turtle")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["turtle"] = lazy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lazy)
is_lazy = lambda: type(lazy) is not type(sys)
assert is_lazy()

from sharing.parts import LISTENER
import grpcpool
assert b"sharing.parts" in pickle.dumps(grpcpool.insecure_channel("orders:1", listeners=[LISTENER]))
OWN = grpcpool.Listener()
assert b"__main__" in pickle.dumps(grpcpool.insecure_channel("orders:1", listeners=[OWN]))
assert is_lazy()
"""
    run_python(program)


def test_a_lease_is_not_sent() -> None:
    """It is a place in this process."""
    with grpcpool.ChannelPool(lambda: grpc.insecure_channel("localhost:1")) as pool:
        lease = grpcpool.Lease()
        lease._pool, lease._released = pool, True
        with pytest.raises(TypeError, match="a lease cannot be copied or sent"):
            pickle.dumps(lease)


def _is_not_sent(call: Any) -> None:
    for attempt in (pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a call cannot be copied or sent to another process"):
            attempt(call)


@pytest.mark.parametrize("streams_in", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("streams_out", [False, True], ids=["unary", "stream"])
def test_a_call_is_not_sent(*, streams_in: bool, streams_out: bool) -> None:
    """It raises where it is pickled: a process pool whose result cannot be read in the parent waits for it forever."""
    with grpcpool.ChannelPool(FakeFactory(lambda: FakeChannel(holds_calls=True)), PoolConfig(max_streams=1)) as pool:
        make: Any = getattr(pool, f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}")(ECHO)
        begin = make if streams_out else make.future
        running, waiting = [begin(iter([b""]) if streams_in else b"") for _ in range(2)]
        _is_not_sent(running)
        _is_not_sent(waiting)


@in_loop
async def test_a_call_is_not_sent_on_asyncio() -> None:
    """A copy would end the call when it is dropped."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory(lambda: aio.FakeChannel(holds_calls=True))) as pool:
        calls: list[Any] = [
            pool.unary_unary(ECHO)(b""),
            pool.unary_stream(ECHO)(b""),
            pool.stream_unary(ECHO)(iter([b""])),
            pool.stream_stream(ECHO)(iter([b""])),
        ]
        for call in calls:
            _is_not_sent(call)
            call.cancel()
