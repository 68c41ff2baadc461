"""Mistakes in tests with fake channels: an error names each where it is made, in both worlds."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import grpcpool.testing
from support.fakes import FakeChannel, aio
from support.loops import in_loop
from support.servers import COUNT, ECHO

Code = grpc.StatusCode

BOTH = pytest.mark.parametrize("fakes", [grpcpool.testing, aio], ids=["sync", "aio"])


@BOTH
def test_first_mistakes_with_fakes_are_explained(fakes: Any) -> None:
    """Half a method name, a handler that is not a function, and handlers or a channel where a factory is needed."""
    with pytest.raises(ValueError, match=r"full method names, such as '/shop.Orders/Get', not 'shop.Orders/Get'"):
        fakes.FakeChannel({"shop.Orders/Get": bytes})
    with pytest.raises(
        TypeError, match=r"the handler of /shop.Orders/Get must be a function of the request, not b'42'"
    ):
        fakes.FakeChannel({"/shop.Orders/Get": b"42"})
    for given in (fakes.FakeChannel(), {"/shop.Orders/Get": bytes}):
        with pytest.raises(TypeError, match=r"a function such as lambda: FakeChannel\(handlers\), not "):
            fakes.FakeFactory(given)


@BOTH
def test_the_name_of_a_code_is_not_a_code(fakes: Any) -> None:
    """It is refused: no test of the code would succeed."""
    with pytest.raises(TypeError, match=r"code must be a grpc.StatusCode, not 'NOT_FOUND'"):
        fakes.error("NOT_FOUND")


def _end_wrongly(unary: Any, stream: Any) -> None:
    """Text is not taken for a list of its characters; a call that is ended wrongly still runs."""
    for call in (unary, stream):
        with pytest.raises(TypeError, match=r"responses must be a list: finish\(\['order 42'\]\)"):
            call.finish("order 42")
        with pytest.raises(TypeError, match=r"code must be a grpc.StatusCode, not 5"):
            call.fail(5)
    with pytest.raises(ValueError, match="the call has one response, not 2"):
        unary.finish(["order 42", "order 43"])
    assert not unary.done()
    assert not stream.done()


def test_a_held_call_is_ended_with_as_many_responses_as_it_may_have() -> None:
    """A wrong end raises, and the call still runs."""
    with FakeChannel(holds_calls=True) as channel:
        call = channel.unary_unary("/shop.Orders/Get").future(b"")
        stream = channel.unary_stream("/shop.Orders/List")(b"")
        _end_wrongly(*channel.calls)
        channel.calls[0].finish(["order 42"])
        channel.calls[1].finish(iter(["order 42", "order 43"]))
        assert call.result() == "order 42"
        assert list(stream) == ["order 42", "order 43"]


@in_loop
async def test_a_held_call_is_ended_with_as_many_responses_as_it_may_have_on_asyncio() -> None:
    """A wrong end raises, and the call still runs."""
    async with aio.FakeChannel(holds_calls=True) as channel:
        call: Any = channel.unary_unary("/shop.Orders/Get")(b"")
        stream: Any = channel.unary_stream("/shop.Orders/List")(b"")
        _end_wrongly(*channel.calls)
        channel.calls[0].finish(["order 42"])
        channel.calls[1].finish(iter(["order 42", "order 43"]))
        assert await call == "order 42"
        assert [response async for response in stream] == ["order 42", "order 43"]


def test_a_handler_that_returns_a_message_is_corrected() -> None:
    """If the stub deserializes, the error says that handlers return bytes."""
    channel: Any = FakeChannel({ECHO: lambda request: "text"})
    with pytest.raises(grpc.RpcError, match="must return bytes for the stub to deserialize, not str"):
        channel.unary_unary(ECHO, None, bytes.decode)(b"")


@in_loop
async def test_a_handler_that_returns_a_message_is_corrected_on_asyncio() -> None:
    """The same on asyncio, where the answer would be `None` if the stub's own code failed."""
    async with aio.FakeChannel({ECHO: lambda request: 5, COUNT: lambda request: ["text"]}) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="must return bytes for the stub to deserialize, not int") as one:
            await channel.unary_unary(ECHO, None, bytes.fromhex)(b"")
        assert one.value.code() is Code.UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError, match="must return bytes for the stub to deserialize, not str"):
            await channel.unary_stream(COUNT, None, bytes.decode)(b"").read()


def test_what_a_call_shows() -> None:
    """Its state or, once it has ended, its code and details; as an error, too."""
    with FakeChannel(holds_calls=True) as channel:
        call = channel.unary_unary("/shop.Orders/Get").future(b"")
        assert repr(call) == "<FakeCall: running>"
        channel.calls[0].fail(Code.NOT_FOUND, "which order?")
        assert str(call) == repr(call) == "<FakeCall: NOT_FOUND 'which order?'>"
