"""Threads and asyncio mixed up: what Python says is in one row of the guide, which says what to do."""

from __future__ import annotations

import gc
import pathlib
import re
from typing import Any

import pytest

import grpcpool
import grpcpool.aio
from grpcpool.testing import FakeFactory, aio
from support.loops import in_loop

pytestmark = pytest.mark.timeout(30)

_GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "howto" / "troubleshooting.md"


def _fits(said: str) -> bool:
    """Whether it is in the row, in which ``...`` stands for anything."""
    (row,) = (line for line in _GUIDE.read_text(encoding="utf-8").splitlines() if "async with pool.acquire()" in line)
    messages = re.findall("`([^`]+)`", row.split(" | ")[0])
    return any(re.search(".*".join(map(re.escape, message.split("..."))), said) for message in messages)


@in_loop
async def test_a_pool_for_threads_in_asyncio() -> None:
    """Awaiting a call, or entering the pool or a lease by `async with`."""
    with grpcpool.ChannelPool(FakeFactory()) as threads:
        pool: Any = threads
        call = pool.unary_unary("/a.B/C")
        with pytest.raises(TypeError) as awaited:
            await call(b"request")
        assert _fits(str(awaited.value))
        with pytest.raises(TypeError) as entered:
            async with pool:
                pass
        assert _fits(str(entered.value))


@in_loop
async def test_what_is_not_awaited() -> None:
    """Entering an asyncio pool by `with`, using what `acquire()` returns as a lease, and `open()` alone."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory()) as pool:
        wrong: Any = pool
        with pytest.raises(TypeError) as entered, wrong:
            pass
        assert _fits(str(entered.value))
        with pytest.warns(RuntimeWarning) as dropped:
            said = _error_of_use(wrong)
        assert _fits(said)
        assert all(_fits(str(warning.message)) for warning in dropped)


def _error_of_use(pool: Any) -> str:
    """Drops what `open()` and `acquire()` return; returns what Python says of its use as a lease."""
    pool.open()
    try:
        pool.acquire().unary_unary("/a.B/C")
    except AttributeError as error:
        return str(error)
    finally:
        gc.collect()
    return ""
