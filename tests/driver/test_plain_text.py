"""Text from a server is escaped wherever a person reads it: in log lines, tracebacks, and the pool's errors."""

from __future__ import annotations

import asyncio
import logging
import pickle
import unicodedata
from typing import NoReturn

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpcpool import Listener, PoolOpenError, PoolTimeoutError
from grpcpool._aio.failed_call import Failed
from grpcpool._shared.announcer import logger
from grpcpool._shared.event_text import describe
from grpcpool._shared.plain_tracebacks import PlainTracebacks, plain_traceback
from grpcpool._shared.status_of_pool_errors import status_of_pool_error
from grpcpool._sync.failed_call import call_error, not_started
from grpcpool._sync.work_queue import run_logged
from grpcpool._values.errors import ConnectError, PoolError
from grpcpool._values.plain_text import plain
from grpcpool.contrib.logging import LoggingListener
from grpcpool.events import AddressesChanged, Leaked, OpenFailed, Opening
from grpcpool.testing import FakeFactory
from support.fakes import failing_factory
from support.hostile import HOSTILE, is_safe, unsafe_in
from support.pools import PoolMaker
from support.waiting import eventually

_CLASSES = st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Zs", "Cs", "Co", "Lo", "Ll", "Po"])
_TEXTS = st.text(_CLASSES) | st.text()


class ServersError(grpc.RpcError):
    """A failed call, with the details that a server sent."""

    def __init__(self, details: str) -> None:
        """With these details."""
        super().__init__(f"<RPC that terminated with:\n\tdetails = {details}>")
        self._details = details

    def details(self) -> str:
        """Returns the details."""
        return self._details


# --- the function ---------------------------------------------------------------------------------------------------


@given(_TEXTS)
@example(HOSTILE)
def test_nothing_unsafe_remains(text: str) -> None:
    """For any text the result is one line without control characters, which UTF-8 can encode; all else stays."""
    escaped = plain(text)
    assert is_safe(escaped)
    escaped.encode()
    assert len(escaped.splitlines()) <= 1
    assert plain(escaped) == escaped
    if text.isprintable():
        assert escaped == text


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)])
def test_each_control_is_escaped(code: int) -> None:
    """Each control character, separator of lines and control of direction becomes its escape in Python."""
    escaped = plain(f"a{chr(code)}b")
    assert escaped.startswith("a\\")
    assert escaped.endswith("b")
    assert escaped.encode().decode("unicode_escape") == f"a{chr(code)}b"


@pytest.mark.parametrize(
    "text",
    [
        "Zażółć, é, ß",
        "日本語　全角",
        "שלום",
        "مرحبا",
        "می\N{ZERO WIDTH NON-JOINER}خواهم",
        "👩\N{ZERO WIDTH JOINER}👧",
        "C:\\new\\table",
        "\xa0",
        "[::1]:443 'x' \"y\"",
    ],
)
def test_every_language_stays(text: str) -> None:
    """Letters of every language stay, with their joiners, and so do spaces, quotes, backslashes and emoji."""
    assert plain(text) == text


def test_the_tests_own_judge() -> None:
    """The judge of these tests finds each unsafe character of the hostile text, and nothing in its letters."""
    found = unsafe_in(HOSTILE)
    assert {"\n", "\r", "\x1b", "\x07", "\x7f", "\x9b", "\x85", "\u2028", "\u202e", "\u2066", "\0"} <= set(found)
    assert not any(unicodedata.category(char).startswith("L") for char in found)


# --- errors of the pool ---------------------------------------------------------------------------------------------


def _refusing_prime(_: grpc.Channel) -> NoReturn:
    raise ServersError(HOSTILE)


def test_the_pools_errors_are_plain(make_pool: PoolMaker) -> None:
    """What `prime` got from a server is in the pool's errors, escaped; the `__cause__` has it as the server sent it."""
    pool = make_pool(FakeFactory(), prime=_refusing_prime)
    with pytest.raises(PoolOpenError) as opened:
        pool.open()
    eventually(lambda: pool.stats().open_failures > 0)
    with pytest.raises(PoolTimeoutError) as timed_out:
        pool.acquire(timeout=0)
    for error in (opened.value, timed_out.value):
        assert plain(HOSTILE) in str(error)
        assert is_safe(str(error))
        assert isinstance(error.__cause__, ServersError)
        assert error.__cause__.details() == HOSTILE


@pytest.mark.parametrize("kind", [PoolError, PoolTimeoutError, PoolOpenError, ConnectError])
def test_an_error_made_of_any_text_is_plain(kind: type[Exception]) -> None:
    """Each error of the pool is one line as text, with all that is harmless; its `args` are as given."""
    error = kind(HOSTILE)
    assert str(error) == plain(HOSTILE)
    assert is_safe(repr(error))
    assert error.args == (HOSTILE,)


def test_a_failed_calls_details_are_the_servers() -> None:
    """`details()` is what the server sent, byte for byte; the error's text, in gRPC's form, has it escaped."""
    open_error = PoolOpenError("no connection could be opened")
    open_error.__cause__ = ServersError(HOSTILE)
    error = call_error(open_error, own_deadline=False)
    assert error.details() == HOSTILE
    assert f'\tdetails = "{plain(HOSTILE)}"\n' in str(error)
    assert is_safe(str(error).replace("\t", ""), lines=True)
    without_cause = not_started(grpc.StatusCode.UNAVAILABLE, HOSTILE, None)
    assert is_safe(str(without_cause).replace("\t", ""), lines=True)


def test_a_failed_asyncio_calls_details_are_the_servers() -> None:
    """The same on asyncio, for the error and for the call."""
    open_error = PoolOpenError("no connection could be opened")
    open_error.__cause__ = ServersError(HOSTILE)
    failed = Failed(*status_of_pool_error(open_error, own_deadline=False), open_error)

    async def fail() -> None:
        await failed

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(fail())
    error = caught.value
    assert error.details() == HOSTILE
    for text in (str(error), repr(error), repr(failed)):
        assert f'\tdetails = "{plain(HOSTILE)}"\n' in text
        assert is_safe(text.replace("\t", ""), lines=True)
    assert pickle.loads(pickle.dumps(error)).details() == HOSTILE  # noqa: S301 -- our own


# --- log lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ServersError(HOSTILE), ConnectError(HOSTILE), ValueError(HOSTILE)])
def test_an_event_is_one_line(error: BaseException) -> None:
    """An event's text has the server's words, escaped, and so has a pool's name."""
    line = describe(OpenFailed(pool=HOSTILE, channel=1, error=error, retry_in=0.5))
    assert is_safe(line)
    assert plain(HOSTILE) in line
    assert line.endswith("; next attempt in 0.500 s at the earliest")


def test_a_leaks_stack_keeps_its_lines() -> None:
    """The stack that acquired a leaked lease is the program's own text, and stays in several lines below the event."""
    line, _, stack = describe(Leaked(pool="p", channel=1, held=2.0, stack="  File x\n    y\n")).partition("\n")
    assert line == "pool 'p': a lease of channel 1 has been held for 2.0 s; it was acquired here:"
    assert stack == "  File x\n    y\n"


def test_the_log_is_plain(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """A failed connect is one line in the pool's own log and in that of a `LoggingListener`."""
    with caplog.at_level(logging.WARNING):
        pool = make_pool(FakeFactory(), prime=_refusing_prime, listeners=[LoggingListener(logging.getLogger("orders"))])
        with pytest.raises(PoolOpenError):
            pool.open()
        eventually(lambda: {"orders", "grpcpool"} <= {record.name for record in caplog.records})
    assert all(is_safe(record.getMessage()) for record in caplog.records)
    assert any(plain(HOSTILE) in record.getMessage() for record in caplog.records)


# --- tracebacks -----------------------------------------------------------------------------------------------------


class Quoting(Listener):
    """Raises an error that quotes the server."""

    def opening(self, event: Opening) -> None:
        """Raises."""
        raise ServersError(HOSTILE)


def _text_of(record: logging.LogRecord) -> str:
    return logging.Formatter().format(record)


def test_a_listeners_traceback_is_plain(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """The text of what a listener raised is one line of the traceback; the record has the exception itself, too."""
    pool = make_pool(failing_factory, listeners=[Quoting()])
    with caplog.at_level(logging.ERROR, "grpcpool"), pytest.raises(PoolOpenError):
        pool.open()
    record = next(record for record in caplog.records if record.exc_info)
    assert isinstance((record.exc_info or (None, None))[1], ServersError)
    text = _text_of(record)
    assert is_safe(text, lines=True)
    assert "Traceback (most recent call last):\n" in text
    assert text.splitlines()[-1].endswith(f"details = {plain(HOSTILE)}>")


def test_the_traceback_of_a_calls_callback_is_plain(caplog: pytest.LogCaptureFixture) -> None:
    """The same for what a callback of a call raised."""

    def callback() -> None:
        raise ServersError(HOSTILE)

    with caplog.at_level(logging.ERROR, "grpcpool"):
        run_logged(callback)
    (record,) = caplog.records
    assert is_safe(_text_of(record), lines=True)


@given(_TEXTS)
@example(HOSTILE)
def test_a_traceback_is_plain(text: str) -> None:
    """Causes, contexts, notes and groups are in the traceback, and none of their texts adds a line."""
    lines = plain_traceback(_nested(text)).split("\n")
    assert is_safe("".join(lines))
    if "\n" not in text:
        assert len(lines) == len(plain_traceback(_nested("x")).split("\n"))
    own = ("grpcpool.", "KeyError", "ExceptionGroup", "The above exception", "During handling")
    assert all(line.startswith(("  ", *own)) for line in lines if line)
    kinds = ("ExceptionGroup", "ValueError", "OSError", "KeyError", "ConnectError")
    assert all(any(kind in line for line in lines) for kind in kinds)


def _nested(text: str) -> ExceptionGroup[Exception]:
    """An exception with everything that an exception can have, each with this text."""
    error = ExceptionGroup(text, [ValueError(text), ExceptionGroup(text, [OSError(text)])])
    error.add_note(text)
    error.__cause__ = KeyError(text)
    error.__cause__.__context__ = ConnectError(text)
    return error


def test_a_long_chain_of_causes() -> None:
    """A traceback with thousands of causes is formatted without recursion."""
    error: Exception = ValueError("first")
    for number in range(3000):
        later = ValueError(number)
        later.__cause__ = error
        error = later
    assert plain_traceback(error).count("ValueError") == 3001


def test_an_exception_that_cannot_be_shown(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the traceback cannot be formatted, the record has the exception's type, and logging goes on."""

    def broken(_: BaseException) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr("grpcpool._shared.plain_tracebacks.plain_traceback", broken)
    with caplog.at_level(logging.ERROR, "grpcpool"):
        run_logged(failing_factory)
    (record,) = caplog.records
    assert record.exc_text == "ConnectionRefusedError"


def test_the_pools_logger_has_the_filter() -> None:
    """The logger `grpcpool` formats its tracebacks itself, whichever handlers a program attaches."""
    assert any(isinstance(each, PlainTracebacks) for each in logger.filters)


@pytest.mark.parametrize(
    ("addresses", "text"),
    [
        (("10.0.0.7:1",), "the target has 1 address; new: 10.0.0.7:1"),
        (("10.0.0.7:1", "10.0.0.8:1"), "the target has 2 addresses; new: 10.0.0.7:1, 10.0.0.8:1"),
    ],
)
def test_addresses_are_counted(addresses: tuple[str, ...], text: str) -> None:
    """One address is not called several."""
    event = AddressesChanged(pool="orders", addresses=addresses, new=addresses, gone=())
    assert describe(event) == f"pool 'orders': {text}"
