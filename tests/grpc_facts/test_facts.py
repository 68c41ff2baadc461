"""The table of what the pool depends on in gRPC is whole, and the rest of the package does without."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

import grpcpool
from grpcpool._grpc.fact import Fact
from grpcpool._grpc.facts import FACT_OF, FACTS
from grpcpool._grpc.missing import warn_of_missing

_SOURCE = pathlib.Path(grpcpool.__file__).parent
_ROOT = pathlib.Path(__file__).parent.parent.parent
_FACTS = "_grpc/"

# What is found by the private name before it: a call's `code` is public, that of its `_state` is not.
_PUBLIC_TOO = {"code"}
_WORDS = {fact.word for fact in FACTS if fact.kind == "private name"} - _PUBLIC_TOO
_MODULES = {fact.name for fact in FACTS if fact.name.startswith("grpc.")}
_OFFERED = {fact.name for fact in FACTS if fact.kind == "offered name"}

# What our own objects call like something of gRPC's, by file, as it is read.
_OURS = {("_aio/lease.py", "lease._channel"), ("_sync/lease.py", "lease._channel")}
# What is private, and not gRPC's, in the folder of the facts.
# They are attributes of these.
_CLASSES = {fact.name.rpartition(".")[0] for fact in FACTS} - {""}
# Attributes of Python's conditions, and of their locks.
_OF_CONDITIONS = {"_acquire_restore", "_is_owned", "_lock", "_release_save", "_waiters"}
_OTHERS = {
    "sys._getframe",
    "sys._current_frames",
    "kind._kind",
    "future._asyncio_future_blocking",
    *(f"lock.{name}" for name in _OF_CONDITIONS),
}


def _sources() -> Iterator[tuple[str, str]]:
    for path in sorted(_SOURCE.rglob("*.py")):
        yield path.relative_to(_SOURCE).as_posix(), path.read_text(encoding="utf-8")


def _is_own(node: ast.Attribute) -> bool:
    """Whether an object reads an attribute of its own."""
    return ast.unparse(node.value) in {"self", "cls", "super()"}


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    before = f"{'.' * node.level}{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        yield f"{before}{alias.name}"


def _faults(file: str, source: str) -> Iterator[str]:
    """Where a source outside of the facts' folder knows something of gRPC that is not public, or compares releases."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute() if node.attr in _WORDS and not _is_own(node):
                if (file, ast.unparse(node)) not in _OURS:
                    yield ast.unparse(node)
            case ast.Constant(value=str(text)) if text in _WORDS | _MODULES:
                yield text
            case ast.Import() | ast.ImportFrom():
                for name in _imported(node):
                    if re.match(r"grpc\.(\w+\.)*_[a-z]", name) or name.endswith(".GRPC_RELEASE"):
                        yield name
            case ast.Name(id="GRPC_RELEASE") | ast.Attribute(attr="GRPC_RELEASE"):
                yield ast.unparse(node)
            case ast.Compare() if "__version__" in ast.unparse(node):
                yield ast.unparse(node)
            case _:
                pass


def test_private_names_stand_in_one_folder() -> None:
    """No module outside of `_grpc` reads private names of gRPC's, imports its private modules, or compares releases."""
    found = {
        file: faults
        for file, source in _sources()
        if not file.startswith(_FACTS) and (faults := list(_faults(file, source)))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        *(f"call.{word}" for word in sorted(_WORDS)),
        "self._native._state",
        "getattr(error, '_state', None)",
        "frame == 'grpc._channel'",
        "import grpc._channel",
        "from grpc import _channel",
        "from grpc._cython import cygrpc",
        "from grpc.aio._interceptor import InterceptedCall",
        "from .._grpc.version import GRPC_RELEASE",
        "GRPC_RELEASE >= (1, 80)",
        "release.GRPC_RELEASE",
        "grpc.__version__ < '1.80'",
        "lease._channel",
    ],
)
def test_the_search_finds_them(line: str) -> None:
    """Each of these is found, wherever it stands."""
    assert list(_faults("_sync/call.py", f"def work():\n    {line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "self._state",
        "from grpc import aio",
        "from grpc.aio import Metadata",
        "from .._grpc.version import SCALES_CONNECTIONS",
        "channel._unary_unary_interceptors",
        "grpc.__version__",
    ],
)
def test_the_search_finds_nothing_else(line: str) -> None:
    """What is public, offered or one's own is not found."""
    assert list(_faults("_sync/call.py", f"def work():\n    {line}\n")) == []


def test_what_the_folder_uses_has_a_row() -> None:
    """Each private attribute and each text with the name of one, in the facts' own folder, has a row in the table."""
    without = []
    for file, source in _sources():
        for node in ast.walk(ast.parse(source)) if file.startswith(_FACTS) else ():
            match node:
                case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__"):
                    known = name in _WORDS or _is_own(node) or ast.unparse(node) in _OTHERS
                case ast.Constant(value=str(name)) if re.fullmatch(r"_[A-Za-z]\w+|grpc(\.\w+)*\._\w+", name):
                    others = _OF_CONDITIONS | {"_running", "grpc._cython"}
                    known = name in _WORDS | _CLASSES | _MODULES | _OFFERED | others
                case _:
                    continue
            if not known:
                without.append((file, node.lineno, name))
    assert without == []


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_fact_is_whole(fact: Fact) -> None:
    """A fact has a release, says why and what happens without it, and its test exists."""
    assert re.fullmatch(r"1\.\d\d", fact.since)
    for text in (fact.why, fact.fallback):
        assert len(text) > 20
        assert text == text.strip(" .")
    file, _, function = fact.test.partition("::")
    tree = ast.parse((_ROOT / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_facts_have_names_of_their_own() -> None:
    """No two facts have one name."""
    assert len(FACT_OF) == len(FACTS)


def test_what_is_missing_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the release, the name and what follows; and comes once."""
    for _ in range(2):
        warn_of_missing("is_ok")
    [record] = caplog.records
    assert (record.name, record.levelname) == ("grpcpool", "WARNING")
    assert re.fullmatch(r"grpcio \S+ has no is_ok: the status comes from .*", record.getMessage())


def test_every_warning_has_a_fact() -> None:
    """Each name that is warned of is in the table."""
    names = set()
    for file, source in _sources():
        if file.startswith(_FACTS):
            names |= set(re.findall(r"warn_of_missing\(\"([^\"]+)\"\)", source))
    assert names
    assert names <= set(FACT_OF)
