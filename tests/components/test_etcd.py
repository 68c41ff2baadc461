"""A pool over etcd: puts, ranges and watches, even when it is killed and restarted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest

from components.conftest import PoolOpener
from components.etcd import Etcd, KeyValueStore, all_under, put, values_of, watch_under
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    """An etcd of this test's own."""
    with Etcd() as etcd:
        etcd.wait_until_it_serves()
        yield etcd


def _put(store: KeyValueStore, folder: str, values: range) -> None:
    for value in values:
        store.put(put(f"{folder}/{value:04}", str(value)), timeout=LONG)


def test_puts_ranges_and_watches(etcd: Etcd, pool_of: PoolOpener) -> None:
    """Twelve watches, each a stream without an end, see all their puts in order; so do ranges."""
    pool = pool_of(etcd, max_size=3, max_streams=8)
    store = KeyValueStore(pool)
    watches = [store.watch(iter([watch_under(f"folder-{i}/")]), timeout=LONG) for i in range(12)]
    assert all(next(watch).created for watch in watches)
    assert pool.stats().in_flight == 12
    together(12, lambda i: _put(store, f"folder-{i}", range(20)))
    for i, watch in enumerate(watches):
        seen: list[int] = []
        while len(seen) < 20:
            seen += values_of(event.kv for event in next(watch).events)
        assert seen == list(range(20))
        assert values_of(store.range(all_under(f"folder-{i}/"), timeout=LONG).kvs) == seen
    assert pool.stats().in_flight == 12
    for watch in watches:
        watch.cancel()
    eventually(lambda: pool.stats().in_flight == 0)


def test_etcd_is_killed_and_comes_back(etcd: Etcd, pool_of: PoolOpener) -> None:
    """While etcd is down, calls and watches fail promptly, and wait-for-ready calls wait; then all succeed."""
    pool = pool_of(etcd, min_size=2, max_size=3)
    store = KeyValueStore(pool)
    _put(store, "before", range(50))
    watch = store.watch(iter([watch_under("during/")]), timeout=LONG)
    assert next(watch).created
    etcd.kill()
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(grpc.RpcError) as caught:
            store.put(put("during/0000", "never"), timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < 5
    assert pool.stats().in_flight == 0
    patient = background(lambda: store.put(put("during/0000", "7"), timeout=LONG, wait_for_ready=True))
    eventually(lambda: pool.stats().waiting + pool.stats().in_flight == 1)
    etcd.restart()
    patient.result(LONG)
    _put(store, "after", range(50))
    for folder, values in ("before", list(range(50))), ("during", [7]), ("after", list(range(50))):
        assert values_of(store.range(all_under(f"{folder}/"), timeout=LONG).kvs) == values
    eventually(lambda: pool.stats().ready == pool.stats().size >= 2)
