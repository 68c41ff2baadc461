"""What `import grpcpool` makes available, and what it does not load."""

from __future__ import annotations

import subprocess
import sys


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)  # noqa: S603 -- our own text


def test_importing_the_package_makes_its_asyncio_twin_available() -> None:
    """`import grpcpool` alone makes `grpcpool.aio` available, as `import grpc` does with `grpc.aio`."""
    _run("import grpcpool; assert grpcpool.aio.ChannelPool.__module__ == 'grpcpool._aio.pool'")


def test_importing_the_package_loads_little() -> None:
    """`import grpcpool` loads nothing but itself; each name is loaded at its first use."""
    _run(
        "from __future__ import annotations\nimport importlib, sys, typing\n"
        "before = set(sys.modules)\n"
        "import grpcpool\n"
        "loaded = {name for name in set(sys.modules) - before}\n"
        "assert loaded == {'grpcpool'}, loaded\n"
        "assert [getattr(grpcpool, name).__name__ for name in grpcpool.__all__] == grpcpool.__all__\n"
        "assert grpcpool.events.Opened and grpcpool.__version__\n"
    )


def test_the_asyncio_twin_is_loaded_at_first_use() -> None:
    """Programs that do not use asyncio do not load the asyncio twin."""
    _run("import sys, grpcpool; assert not [name for name in sys.modules if name.startswith('grpcpool._aio')]")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that the package does not have raises `AttributeError`, as for any module."""
    _run("import grpcpool\ntry: grpcpool.nothing\nexcept AttributeError as error: assert 'nothing' in str(error)")


def test_completion_offers_what_is_loaded_later() -> None:
    """`dir(grpcpool)`, by which shells complete, has every public name before its first use, and no others."""
    _run(
        "import grpcpool\n"
        "offered = {name for name in dir(grpcpool) if not name.startswith('_')}\n"
        "assert offered == {*grpcpool.__all__, 'aio', 'events'}, offered\n"
        "assert '__version__' in dir(grpcpool)\n"
        "assert all(hasattr(grpcpool, name) for name in dir(grpcpool))\n"
        "assert {name for name in dir(grpcpool.aio) if not name.startswith('_')} == {*grpcpool.aio.__all__}\n"
    )


def test_annotations_can_be_resolved() -> None:
    """`typing.get_type_hints` resolves the annotations of every public class, as frameworks that inject objects do."""
    _run(
        "import typing, grpcpool\n"
        "for module in (grpcpool, grpcpool.aio, grpcpool.events):\n"
        "    for name in module.__all__:\n"
        "        if isinstance(found := getattr(module, name), type):\n"
        "            typing.get_type_hints(found)\n"
    )
