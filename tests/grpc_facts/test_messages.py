"""Texts of gRPC's that the pool parses: in other words, less is known, and nothing breaks."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpcpool import insecure_channel, isolated
from grpcpool._grpc import status
from grpcpool._grpc.servers_words import server_by_its_words
from grpcpool._grpc.version import GRPC_RELEASE
from support.call_server import SU, UU, CallServer
from support.pools import PoolMaker
from support.refusing_server import RefusingServer
from support.servers import ECHO, Server, unary
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(120)

_NEVER = re.compile(r"(?!)")


@pytest.mark.parametrize("how", ["__call__", "future"])
def test_a_refusal_in_other_words(
    refusing: RefusingServer, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A refusal that is not known as one fails its call, once."""
    monkeypatch.setattr(status, "_REFUSED", _NEVER)
    pool = make_pool(refusing.channel, max_size=2, min_size=2)
    pool.open()
    refusing.begin(open=0)
    unary: Any = pool.unary_unary("/refusals.Test/Uu")
    with pytest.raises(grpc.RpcError) as caught:
        getattr(unary, how)(b"ok", timeout=LONG).result(LONG)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    told = refusing.report()
    assert (told.all.begun, told.handled) == (1, {})
    eventually(lambda: pool.stats().in_flight == 0)
    assert pool.stats().refused_streams == 0


@pytest.mark.parametrize("words", [status._LOST, _NEVER], ids=["as they are", "others"])
def test_a_loss_in_other_words(make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, words: re.Pattern[str]) -> None:
    """A pool whose server was killed works again when the server does, whatever gRPC says of the calls."""
    monkeypatch.setattr(status, "_LOST", words)
    with CallServer() as server:
        pool = make_pool(server.channel, max_size=1, connect_timeout=5)
        unary: Any = pool.unary_unary(UU)
        assert unary(b"ok", timeout=LONG) == b"0"
        held = unary.future(b"hold:lost", timeout=LONG)
        server.wait_until_held("lost")
        server.kill()
        with pytest.raises(grpc.RpcError):
            held.result(LONG)
        server.start()

        def works() -> bool:
            try:
                return bool(unary(b"ok", timeout=LONG) == b"0")
            except grpc.RpcError:
                return False

        assert eventually(works)
        assert pool.stats().in_flight == 0
        pool.close()


@pytest.mark.parametrize("known", [True, False])
def test_a_failed_connect_in_other_words(monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    """In gRPC's own words a call that could not be sent runs on another connection; in others it fails, as on one.

    Until gRPC itself has read that the connection is gone, calls are lost with it, which is another error.
    """
    if not known:
        monkeypatch.setattr(status, "_NOT_CONNECTED", re.compile("(?!)"))
    with CallServer() as one, CallServer() as other, insecure_channel(f"ipv4:{one.target},{other.target}") as pool:
        unary: Any = pool.unary_unary(UU)
        assert unary(b"ok", timeout=LONG) == b"0"
        eventually(lambda: pool.stats().ready == 2)
        one.kill()
        errors: list[Any] = [unary.future(b"ok", timeout=LONG).exception(LONG) for _ in range(4)]
        failed = [error.code() for error in errors if error is not None and "failed to connect" in str(error)]
        assert failed in ([], *([] if known else [[grpc.StatusCode.UNAVAILABLE]]))
        # A call that fails is over for its caller before its callbacks are called.
        eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_the_words_name_the_address(family: socket.AddressFamily, host: str, policy: str) -> None:
    """That which the channel could not reach, as a URI: so a server that relays these words is recognized."""
    with socket.socket(family) as taken:
        taken.bind((host.strip("[]"), 0))
        address = f"{host}:{taken.getsockname()[1]}"
        options = [("grpc.service_config", json.dumps({"loadBalancingConfig": [{policy: {}}]}))]
        with grpc.insecure_channel(address, options) as channel, pytest.raises(grpc.RpcError) as raised:
            unary(channel, UU, b"ok", timeout=LONG)
    error: Any = raised.value
    assert status.Status(error.code(), error.details()).unreached == status.uri_of(address) is not None


@pytest.mark.parametrize("words", [status._OWN_DEADLINE, re.compile("other words")], ids=["as they are", "others"])
@pytest.mark.parametrize("how", ["__call__", "future"])
def test_a_deadline_in_other_words(
    calls: CallServer, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, words: re.Pattern[str], how: str
) -> None:
    """Only in gRPC's own words a call that ran into its deadline shows that its connection is silent."""
    monkeypatch.setattr(status, "_OWN_DEADLINE", words)
    pool = make_pool(calls.channel, max_size=1)
    unary: Any = pool.unary_unary(UU)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(unary, how)(b"hold:late", timeout=0.1).result(LONG)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: pool.stats().in_flight == 0)
    (slot,) = pool._driver.machine.fleet.slots
    assert slot.overdue_calls == (words.fullmatch("Deadline Exceeded") is not None)
    assert pool.stats().failures == 1


@pytest.mark.parametrize("how", ["__call__", "future"])
def test_a_deadline_while_it_is_sent(make_pool: PoolMaker, how: str) -> None:
    """Of a request that is too large for a frozen server's buffers. gRPC has other words for that in later releases."""
    with Server() as server:
        pool = make_pool(lambda: grpc.insecure_channel(server.target, isolated()), max_size=1)
        unary: Any = pool.unary_unary(ECHO)
        unary(b"", timeout=LONG)
        server.freeze()
        with pytest.raises(grpc.RpcError) as caught:
            getattr(unary, how)(bytes(300_000), timeout=0.2).result(LONG)
        server.thaw()
        assert status.status_of(caught.value).is_unanswered, caught.value
        eventually(lambda: pool.stats().in_flight == 0)


def _fails(_: object) -> Any:
    raise ArithmeticError("as the test wants")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "made",
    [{"request_serializer": _fails}, {"response_deserializer": _fails}, {"request_serializer": lambda n: b"x" * n}],
    ids=["serializer", "deserializer", "too large"],
)
def test_messages_that_are_not_sent_or_read(
    calls: CallServer, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, made: dict[str, Any], known: bool
) -> None:
    """A call whose message cannot be sent or read does not show that its server is sick."""
    if not known:
        monkeypatch.setattr(status, "_MESSAGES", _NEVER)
    options = [("grpc.max_send_message_length", 1000), *isolated()]
    pool = make_pool(lambda: grpc.insecure_channel(calls.target, options))
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(UU, **made)(2000 if "request_serializer" in made else b"ok", timeout=LONG)
    assert pool.stats().failures == (not known)


def _requests() -> Iterator[bytes]:
    yield from ()
    raise ArithmeticError("as the test wants")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("requests", lambda pool: pool.stream_unary(SU)(_requests(), timeout=LONG)),
        ("metadata", lambda pool: pool.unary_unary(UU)(b"ok", timeout=LONG, metadata=[("Upper-Case", "is invalid")])),
    ],
    ids=["requests", "metadata"],
)
def test_what_a_caller_may_not_send(
    calls: CallServer, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, what: str, call: Any, known: bool
) -> None:
    """A call whose requests raise, or whose metadata is invalid, does not show that its server is sick."""
    if not known:
        monkeypatch.setattr(status, "_MESSAGES", _NEVER)
    pool = make_pool(calls.channel)
    pool.open()
    at_once = what == "metadata" and GRPC_RELEASE < (1, 81)
    with pytest.raises(ValueError if at_once else grpc.RpcError):
        call(pool)
    eventually(lambda: pool.stats().in_flight == 0)
    assert pool.stats().failures == (not known and not at_once)


@pytest.mark.parametrize(
    ("details", "server"),
    [
        ("Method not found!", "gRPC Python"),
        ("unknown service grpcpool.cli.Probe", "gRPC Go"),
        ("Method not found: grpcpool.cli.Probe/Unknown", "gRPC Java"),
        ("No such method", None),
        ("", None),
    ],
)
def test_a_server_in_other_words(details: str, server: str | None) -> None:
    """A server is named by its words, and by no others."""
    assert server_by_its_words(details) == server
