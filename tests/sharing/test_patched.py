"""`patched`: gRPC's constructors create pools for a while."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import grpcpool
from grpcpool import PoolConfig
from support.call_server import UU, CallServer
from support.connections import connections_to
from support.loops import run
from support.programs import run_python
from support.waiting import together

pytestmark = pytest.mark.timeout(60)


def _unary(channel: Any) -> Any:
    return channel.unary_unary(UU)


def _size(pool: Any) -> int:
    return int(pool.config.max_size)


_PLAIN = type(grpc.insecure_channel("orders:1"))
_NAMES = [(home, name) for home in (grpc, grpc.aio) for name in ("insecure_channel", "secure_channel")]


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Whatever a test does to gRPC's constructors is undone."""
    before = [getattr(home, name) for home, name in _NAMES]
    yield
    for (home, name), function in zip(_NAMES, before, strict=True):
        setattr(home, name, function)


@pytest.fixture
def sdk() -> Iterator[Any]:
    """A module that has imported gRPC's constructors, and keeps one where names do not reach."""
    module: Any = types.ModuleType("some_sdk")
    module.insecure_channel, module.aio_channel = grpc.insecure_channel, grpc.aio.insecure_channel
    module.partial = functools.partial(grpc.secure_channel, "orders:1")
    module.Transport = type("Transport", (), {"make": staticmethod(grpc.insecure_channel), "__module__": "some_sdk"})
    sys.modules["some_sdk"] = module
    yield module
    del sys.modules["some_sdk"]


def test_all_four_create_handles_and_are_put_back() -> None:
    """With gRPC's parameters, names and documentation."""
    before = [getattr(home, name) for home, name in _NAMES]
    with grpcpool.patched():
        for (home, name), function in zip(_NAMES, before, strict=True):
            ours = getattr(home, name)
            assert ours is not function
            assert (ours.__name__, ours.__doc__) == (name, function.__doc__)
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(function).parameters)
            credentials = [grpc.local_channel_credentials()] if name == "secure_channel" else []
            channel = ours("orders:1", *credentials, options=[("a", 1)], compression=None)
            assert isinstance(channel, (grpcpool if home is grpc else grpcpool.aio).ChannelPool)
    assert [getattr(home, name) for home, name in _NAMES] == before


@pytest.mark.parametrize("shared", [True, False])
def test_channels_with_equal_arguments_share_a_pool(calls: CallServer, *, shared: bool) -> None:
    """Unless that is not wanted."""
    with grpcpool.patched(PoolConfig(max_size=3), shared=shared):
        channels: list[Any] = [grpc.insecure_channel(calls.target) for _ in range(4)]
    for channel in channels:
        assert _unary(channel)(b"ok", timeout=20) == b"0"
        assert channel.config.max_size == 3
    assert connections_to(calls.port) == (1 if shared else 4)
    for channel in channels:
        channel.close()


def test_of_asyncio(calls: CallServer) -> None:
    """Interceptors too, also by position."""

    async def main() -> None:
        with grpcpool.patched():
            async with grpc.aio.insecure_channel(calls.target, None, None, []) as channel:
                assert await _unary(channel)(b"ok", timeout=20) == b"0"
                assert isinstance(channel, grpcpool.aio.ChannelPool)

    run(main())


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, {"orders:1": 7, "users:1": 7}),
        ("orders:*", {"orders:1": 7, "users:1": None}),
        (["x", "orders:1"], {"orders:1": 7, "users:1": None}),
        ({"orders:*": PoolConfig(max_size=2), "*": None}, {"orders:1": 2, "users:1": 7}),
        ("[::1]:1", {"[::1]:1": 7, "users:1": None}),
        (["[::1]:*", "ipv6:[::?]:1"], {"[::1]:50051": 7, "ipv6:[::2]:1": 7, "ipv6:[::22]:1": None, "::50051": None}),
        ("*:1", {"[::1]:1": 7, "[::1]:2": None}),
        (lambda target: target == "users:1", {"orders:1": None, "users:1": 7}),
        (lambda target: PoolConfig(max_size=5) if target == "users:1" else None, {"orders:1": None, "users:1": 5}),
    ],
    ids=["all", "glob", "globs", "mapping", "an IPv6 address", "IPv6", "any host", "callable", "settings"],
)
def test_targets_are_chosen(targets: Any, expected: dict[str, int | None]) -> None:
    """All others get gRPC's own channels."""
    with grpcpool.patched(PoolConfig(max_size=7), targets=targets) as patch:
        for target, size in expected.items():
            channel: Any = grpc.insecure_channel(target)
            assert (channel.config.max_size if size else type(channel)) == (size or _PLAIN)
            channel.close()
    assert {made.target: made.pooled for made in patch.report().channels} == {
        target: size is not None for target, size in expected.items()
    }


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"targets": 5}, "globs, a mapping from globs to PoolConfig or a callable, not 5"),
        ({"targets": [5]}, "must be globs, such as"),
        ({"targets": {"a": 5}}, r"targets\['a'\] must be a PoolConfig"),
        ({"config": 5}, "config must be a PoolConfig"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], match: str) -> None:
    """They are refused at once."""
    with pytest.raises(TypeError, match=match):
        grpcpool.patched(**arguments)


def test_names_that_modules_imported_are_replaced_too(sdk: Any) -> None:
    """And put back; those imported meanwhile as well. The report says which, and where plain ones remain."""
    plain, aio = sdk.insecure_channel, sdk.aio_channel
    with grpcpool.patched() as patch:
        assert isinstance(sdk.insecure_channel("orders:1"), grpcpool.ChannelPool)
        assert isinstance(sdk.aio_channel("orders:1"), grpcpool.aio.ChannelPool)
        sdk.later = grpc.insecure_channel
        report = patch.report()
    assert {"grpc.insecure_channel", "grpc.aio.secure_channel", "some_sdk.insecure_channel", "some_sdk.later"} <= set(
        report.replaced
    )
    assert {"some_sdk.partial", "some_sdk.Transport"} <= set(report.plain)
    assert [(made.target, made.pooled, made.number) for made in report.channels] == [("orders:1", True, 2)]
    for line in ("replaced:\n", "  some_sdk.insecure_channel\n", "  orders:1: 2 pooled\n", "  some_sdk.Transport"):
        assert line in str(report)
    assert (sdk.insecure_channel, sdk.later, sdk.aio_channel) == (plain, plain, aio)
    assert patch.report().replaced == ()


class _Spans(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
    """What every tracer does."""

    def __init__(self) -> None:
        self.calls = 0

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.calls += 1
        return continuation(client_call_details, request)

    def instrument(self) -> None:
        """Puts itself in front of gRPC's constructor."""
        before = grpc.insecure_channel
        grpc.insecure_channel = lambda *given, **named: grpc.intercept_channel(before(*given, **named), self)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_tracer_has_one_span_a_call(calls: CallServer, order: str, *, shared: bool) -> None:
    """Whether it comes before the patch or after it. What it has put in front stays, and works without the pool."""
    spans, patch = _Spans(), grpcpool.patched(shared=shared)
    steps: list[Callable[[], object]] = [spans.instrument, patch.start]
    for step in steps if order == "before" else reversed(steps):
        step()
    with grpc.insecure_channel(calls.target) as channel:
        assert _unary(channel)(b"ok", timeout=20) == b"0"
    assert (spans.calls, sum(made.number for made in patch.report().channels)) == (1, 1)
    traced = grpc.insecure_channel
    patch.stop()
    assert (grpc.insecure_channel is traced) == (order == "after")
    with grpc.insecure_channel(calls.target) as channel:
        assert _unary(channel)(b"ok", timeout=20) == b"0"
    assert (spans.calls, sum(made.number for made in patch.report().channels)) == (2, 1)


def test_patches_within_one_another_end_in_any_order(calls: CallServer) -> None:
    """A pool never consists of pools, and in the end everything is as before."""
    before = grpc.insecure_channel
    outer, inner = grpcpool.patched(PoolConfig(max_size=2)), grpcpool.patched(PoolConfig(max_size=3))
    outer.start()
    inner.start()
    with grpc.insecure_channel(calls.target) as channel:
        assert _unary(channel)(b"ok", timeout=20) == b"0"
        assert _size(channel) == 3
        assert connections_to(calls.port) == 1
    with grpcpool.insecure_channel(calls.target) as pool:
        method: Any = pool.unary_unary(UU)
        assert method(b"ok", timeout=20) == b"0"
    outer.stop()
    with grpc.insecure_channel(calls.target) as channel:
        assert _size(channel) == 3
    inner.stop()
    assert isinstance(grpc.insecure_channel(calls.target), type(before(calls.target)))


def test_it_can_be_applied_again() -> None:
    """Twice at once is once."""
    before, patch = grpc.insecure_channel, grpcpool.patched()
    for _ in range(2):
        assert patch.start() is patch
        patch.start()
        assert isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)
        patch.stop()
        patch.stop()
        assert grpc.insecure_channel is before


def test_blocks_of_one_patch() -> None:
    """The end of the last one takes it back; `stop` does so at once."""
    before, patch = grpc.insecure_channel, grpcpool.patched()

    def is_applied() -> bool:
        return isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)

    with patch:
        with patch:
            assert is_applied()
        assert is_applied()
        with pytest.raises(KeyError), patch:
            raise KeyError
        assert is_applied()
    assert grpc.insecure_channel is before
    with patch:
        patch.stop()
        assert not is_applied()
    with patch:
        assert is_applied()
    assert grpc.insecure_channel is before


def test_blocks_of_one_patch_on_several_threads() -> None:
    """Each of them is patched until its own end."""
    before, patch = grpc.insecure_channel, grpcpool.patched()
    both_inside, one_left = threading.Barrier(2), threading.Event()

    def client(number: int) -> bool:
        try:
            with patch:
                both_inside.wait(20)
                if number == 0:
                    return True
                assert one_left.wait(20)
                return isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)
        finally:
            one_left.set()

    assert together(2, client) == [True, True]
    assert grpc.insecure_channel is before


def test_the_first_to_start_is_the_first_to_stop() -> None:
    """Then everything is as before, also after many rounds."""
    before = [getattr(home, name) for home, name in _NAMES]
    for _ in range(3):
        first, second = grpcpool.patched().start(), grpcpool.patched().start()
        first.stop()
        assert isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)
        second.stop()
        assert [getattr(home, name) for home, name in _NAMES] == before


def test_threads_patch_at_once() -> None:
    """Names are of the whole process: one thread at a time changes them."""
    before = [getattr(home, name) for home, name in _NAMES]

    def patch(_: int) -> None:
        for _ in range(10):
            with grpcpool.patched(targets="none:*"):
                pass

    together(4, patch)
    assert [getattr(home, name) for home, name in _NAMES] == before


def test_modules_that_are_imported_lazily_are_left_alone() -> None:
    """Reading their names would import what they stand for."""

    class Lazy(types.ModuleType):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise ImportError("not installed")

    before = grpc.insecure_channel
    sys.modules["some_lazy"] = Lazy("some_lazy")
    try:
        with grpcpool.patched() as patch:
            patch.report()
    finally:
        del sys.modules["some_lazy"]
    assert grpc.insecure_channel is before


@pytest.mark.parametrize("how", ["patched", "replaced"])
@pytest.mark.parametrize("imported", [True, False], ids=["imported", "looked up"])
def test_a_factory_creates_no_pools(calls: CallServer, sdk: Any, how: str, *, imported: bool) -> None:
    """Of threads: what it creates by gRPC's constructor, under whatever name, is a channel."""
    made: list[Any] = []

    def factory() -> grpc.Channel:
        create = sdk.insecure_channel if imported else grpc.insecure_channel
        made.append(create(calls.target, grpcpool.isolated()))
        channel: grpc.Channel = made[-1]
        return channel

    patch = grpcpool.patched()
    if how == "patched":
        patch.start()
    else:
        grpc.insecure_channel = grpcpool.insecure_channel
    with grpcpool.ChannelPool(factory) as pool:
        assert _unary(pool)(b"ok", timeout=20) == b"0"
    assert [type(channel) for channel in made] == [_PLAIN]
    assert isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)
    patch.stop()


def test_a_factory_creates_no_pools_on_asyncio(calls: CallServer) -> None:
    """The same; outside of it, the patch works."""
    made: list[Any] = []

    def factory() -> grpc.aio.Channel:
        made.append(grpc.aio.insecure_channel(calls.target, grpcpool.isolated()))
        channel: grpc.aio.Channel = made[-1]
        return channel

    async def main() -> None:
        with grpcpool.patched():
            async with grpcpool.aio.ChannelPool(factory) as pool:
                assert await _unary(pool)(b"ok", timeout=20) == b"0"
            assert isinstance(grpc.aio.insecure_channel("orders:1"), grpcpool.aio.ChannelPool)
        assert not isinstance(made[0], grpcpool.aio.ChannelPool)

    run(main())


class _Lazy:
    """Stands for an object that is created at the first use, as of Django's settings, and of Celery's tasks."""

    def _create(self, *_: object) -> Any:
        raise AssertionError("used")

    __getattribute__ = __getattr__ = __setattr__ = __delattr__ = _create
    __eq__ = __hash__ = __bool__ = __str__ = __repr__ = __call__ = __iter__ = __len__ = _create


class _LazyType(type):
    """Stands for the class of such an object."""

    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError("used")


def test_objects_that_are_created_lazily_are_left_alone(sdk: Any) -> None:
    """The patch and its report only look at their types; they still find what is beside them."""
    sdk.settings = _Lazy()
    sdk.Lazy = _LazyType("Lazy", (), {"__module__": "some_sdk", "settings": _Lazy()})
    sdk.Model = type("Model", (), {"__module__": "some_sdk", "objects": _Lazy(), "make": grpc.insecure_channel})
    with grpcpool.patched() as patch:
        assert {"some_sdk.Transport", "some_sdk.Model"} <= set(patch.report().plain)


@pytest.mark.parametrize("early", [True, False])
def test_the_old_name_of_asyncio(*, early: bool) -> None:
    """`grpc.experimental.aio` imports gRPC's constructors; its names are replaced, reported and put back."""
    program = """
import sys
import grpc, grpcpool
before = [grpc.aio.insecure_channel]
early = sys.argv[1] == "True"
if early:
    import grpc.experimental.aio
with grpcpool.patched() as patch:
    import grpc.experimental.aio as old
    assert old.insecure_channel is grpc.aio.insecure_channel is not before[0]
    assert "grpc.experimental.aio.insecure_channel" in patch.report().replaced
assert old.insecure_channel is before[0]
"""
    run_python(program, str(early))


def test_a_secure_channel_needs_credentials() -> None:
    """Without, it is not taken for an insecure one."""
    with grpcpool.patched(), pytest.raises(TypeError, match="credentials must be"):
        grpc.secure_channel("orders:1", None)  # type: ignore[arg-type]
