"""What creates a channel of a pool when functions have replaced gRPC's constructor, with texts in place of channels.

`contrib.test_tracers` has the same with tracers and calls.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool._grpc.own_constructors import own_constructor
from grpcpool._shared.constructors import NAMES, Constructor, calling_code

Make = Callable[..., str]


class World:
    """A module with a constructor, and a function like the pool's that can replace it."""

    def __init__(self) -> None:
        """GRPC's constructor stands there."""
        home: Any = types.ModuleType("grpc")
        home.make = lambda target, **around: f"grpc({target}{'+' * len(around)})"
        self.home = home
        self.constructor = Constructor(home, "make")
        # Creates a channel of the pool that was created last.
        self.connect: Callable[[], str] = str

    def ours(self, target: str, **around: Any) -> str:
        """As the pool's function."""
        caller = calling_code()
        if self.constructor.is_creating():
            return str(self.constructor.create_below(caller, target, **around))
        self.connect = lambda: str(self.constructor.create(caller, target))
        return "pool"

    def replace(self) -> None:
        """Puts the pool's function in the place of what stands there."""
        ours = self.ours
        self.constructor.note(ours)
        self.home.make = ours

    def wrap(self, name: str) -> None:
        """Puts a tracer around what stands there."""
        before: Make = self.home.make
        self.home.make = lambda *arguments, **more: f"{name}({before(*arguments, **more)})"

    def pool(self) -> tuple[str, str]:
        """Creates a pool by what stands there: what is around it, and one of its channels."""
        around: str = self.home.make("t")
        return around, self.connect()


@pytest.fixture
def world() -> World:
    """A module of gRPC's as it was at the import."""
    return World()


def _steps(world: World, steps: str) -> None:
    for step in steps.split():
        if step == "ours":
            world.replace()
        else:
            world.wrap(step)


@pytest.mark.parametrize(
    ("steps", "around", "channel"),
    [
        ("ours", "pool", "grpc(t)"),
        ("a ours", "pool", "a(grpc(t))"),
        ("ours a", "a(pool)", "grpc(t)"),
        ("a ours b", "b(pool)", "a(grpc(t))"),
        ("a b ours c d", "d(c(pool))", "b(a(grpc(t)))"),
        ("ours ours", "pool", "grpc(t)"),
        ("ours a ours", "pool", "a(grpc(t))"),
        ("ours a ours b ours", "pool", "b(a(grpc(t)))"),
        ("a ours ours b", "b(pool)", "a(grpc(t))"),
    ],
)
def test_each_tracer_is_there_once(world: World, steps: str, around: str, channel: str) -> None:
    """Each is around the pool or around each channel of it, and gRPC's constructor creates the channel."""
    _steps(world, steps)
    assert world.pool() == (around, channel)


@pytest.mark.parametrize(
    ("steps", "channel"),
    [("", "grpc(t)"), ("a", "a(grpc(t))"), ("a ours", "a(grpc(t))"), ("ours a", "a(grpc(t))")],
)
def test_a_pool_by_its_own_name(world: World, steps: str, channel: str) -> None:
    """A pool that no tracer is around has it around its channels, whether or not the tracer leads to pools."""
    _steps(world, steps)
    assert world.ours("t") == "pool"
    assert world.connect() == channel


def test_a_tracer_that_comes_later(world: World) -> None:
    """Channels that are created from then on have it, in a pool that was created without it."""
    world.replace()
    world.pool()
    world.wrap("a")
    assert world.connect() == "a(grpc(t))"


def test_a_function_that_is_not_in_python(world: World) -> None:
    """One that has settings for the pool's function stands between, as `functools.partial`."""
    _steps(world, "a ours")
    world.home.make = functools.partial(world.home.make)
    assert world.pool() == ("pool", "a(grpc(t))")
    world.wrap("b")
    assert world.pool() == ("b(pool)", "a(grpc(t))")


def test_interceptors_are_where_the_tracer_is(world: World) -> None:
    """Those that a tracer passes on are around the pool, or around its channel, not both."""
    _steps(world, "ours")
    before = world.home.make
    world.home.make = lambda target: before(target, interceptors=["tracer"])
    assert world.pool() == ("pool", "grpc(t)")
    world.ours("t")
    assert world.connect() == "grpc(t+)"


def test_what_stood_there_for_a_while_is_forgotten(world: World) -> None:
    """What counts is what stood there the last time; of the others a few are remembered."""
    first = world.home.make
    for number in range(100):
        world.wrap(str(number))
        world.constructor.note(world.ours)
        world.home.make = first
    assert len(world.constructor._stood) < 12
    world.replace()
    assert world.pool() == ("pool", "grpc(t)")


def test_a_tracer_that_calls_what_it_wraps_twice(world: World) -> None:
    """It gets a channel each time, as one that tries again does."""
    _steps(world, "a ours")
    before = world.home.make
    world.home.make = lambda target: [before(target), before(target)][-1]
    assert world.pool() == ("pool", "a(grpc(t))")


def test_after_an_error(world: World) -> None:
    """A constructor that raises leaves nothing behind: what is created next is a pool again."""
    world.replace()
    world.pool()
    here = world.home.make

    def fail(target: str) -> str:
        raise ArithmeticError(target)

    world.home.make = fail
    with pytest.raises(ArithmeticError):
        world.connect()
    world.home.make = here
    assert world.pool() == ("pool", "grpc(t)")
    assert not world.constructor.is_creating()


def test_other_threads_create_pools(world: World) -> None:
    """While one thread creates a channel, another gets a pool."""
    world.replace()
    world.pool()
    got: list[str] = []

    def elsewhere(target: str) -> str:
        thread = threading.Thread(target=lambda: got.append(world.ours(target)))
        thread.start()
        thread.join()
        return "channel"

    world.home.make = elsewhere
    assert (world.connect(), got) == ("channel", ["pool"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("home", [grpc, grpc.aio], ids=["threads", "asyncio"])
def test_what_calls_the_pools_function_stood_there_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch, home: Any, name: str
) -> None:
    """If a program has replaced gRPC's function before the pool's was ever looked up, gRPC's own is found."""
    own = getattr(home, name)

    def replaces(*arguments: Any) -> Any:
        return constructor.create_below(calling_code(), *arguments)

    monkeypatch.setattr(home, name, replaces)
    constructor = Constructor(home, name)

    async def types_of_channels() -> list[type]:
        credentials = [grpc.local_channel_credentials()] if name == "secure_channel" else []
        found = []
        makes: list[Any] = [own, functools.partial(constructor.create, None), own_constructor(home, name)]
        for make in makes:
            channel = make("127.0.0.1:1", *credentials)
            found.append(type(channel))
            closing = channel.close()
            if closing is not None:
                await closing
        return found

    kind, *others = asyncio.run(types_of_channels())
    assert others == [kind, kind]


def test_code_without_the_function() -> None:
    """It is not found; nothing is raised."""
    assert own_constructor(types.ModuleType("grpc"), "insecure_channel") is None
    assert own_constructor(grpc, "another_channel") is None
    assert own_constructor(grpc.aio, "another_channel") is None
