"""Handles that are dropped without having been used."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import grpcpool.aio


@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio])
def test_unused_pool_is_collected(world: Any) -> None:
    """A pool is collected together with its last handle, if nothing has used it."""
    handles = [world.shared_channel("127.0.0.1:1", name="unused") for _ in range(2)]
    pool = weakref.ref(handles[0]._pool)
    assert handles[1]._pool is pool()
    handles.pop()
    gc.collect()
    assert pool() is not None
    handles.clear()
    # The first collection may only run finalizers.
    gc.collect()
    gc.collect()
    assert pool() is None
