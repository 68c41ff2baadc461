"""Same as `test_etcd`, on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import pytest

from components import tasks
from components.etcd import Etcd, KeyValueStore, all_under, put, values_of, watch_under
from support.loops import run, until
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    """An etcd of this test's own."""
    with Etcd() as etcd:
        etcd.wait_until_it_serves()
        yield etcd


async def _put(store: KeyValueStore, folder: str, values: range) -> None:
    for value in values:
        await store.put(put(f"{folder}/{value:04}", str(value)), timeout=LONG)


def test_puts_ranges_and_watches(etcd: Etcd) -> None:
    """Twelve watches, each a stream without an end, see all their puts in order; so do ranges."""

    async def main() -> None:
        async with tasks.pool_of(etcd, max_size=3, max_streams=8) as pool:
            store = KeyValueStore(pool)
            watches = [store.watch(timeout=LONG) for _ in range(12)]
            for i, watch in enumerate(watches):
                await watch.write(watch_under(f"folder-{i}/"))
                assert (await watch.read()).created
            assert pool.stats().in_flight == 12
            await asyncio.gather(*(_put(store, f"folder-{i}", range(20)) for i in range(12)))
            for i, watch in enumerate(watches):
                seen: list[int] = []
                while len(seen) < 20:
                    seen += values_of(event.kv for event in (await watch.read()).events)
                assert seen == list(range(20))
                assert values_of((await store.range(all_under(f"folder-{i}/"), timeout=LONG)).kvs) == seen
            assert pool.stats().in_flight == 12
            for watch in watches:
                watch.cancel()
            await until(lambda: pool.stats().in_flight == 0)

    run(main())


def test_etcd_is_killed_and_comes_back(etcd: Etcd) -> None:
    """While etcd is down, calls and watches fail promptly, and wait-for-ready calls wait; then all succeed."""

    async def main() -> None:
        async with tasks.pool_of(etcd, min_size=2, max_size=3) as pool:
            store = KeyValueStore(pool)
            await _put(store, "before", range(50))
            watch = store.watch(timeout=LONG)
            await watch.write(watch_under("during/"))
            assert (await watch.read()).created
            etcd.kill()
            with pytest.raises(grpc.RpcError) as caught:
                await watch.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            began = time.monotonic()
            for _ in range(20):
                with pytest.raises(grpc.RpcError) as caught:
                    await store.put(put("during/0000", "never"), timeout=LONG)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 5
            assert pool.stats().in_flight == 0
            patient = store.put(put("during/0000", "7"), timeout=LONG, wait_for_ready=True)
            await until(lambda: pool.stats().waiting + pool.stats().in_flight == 1)
            etcd.restart()
            await patient
            await _put(store, "after", range(50))
            for folder, values in ("before", list(range(50))), ("during", [7]), ("after", list(range(50))):
                assert values_of((await store.range(all_under(f"{folder}/"), timeout=LONG)).kvs) == values
            await until(lambda: pool.stats().ready == pool.stats().size >= 2)

    run(main())
