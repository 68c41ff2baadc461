"""The world of threads: what callers do with a `grpcpool.ChannelPool`, each on a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

import grpcpool
from soak.book import Book, Call
from soak.callers import CLOSED_UNDER, MANY, METHODS, BaseCaller, expected
from soak.wishes import Wish, broken, plain, wishes
from soak.world import CALLERS, REST, Setting, World
from support.servers import RECONNECT_SOON


def numbers(count: int, pause: float = 0.0) -> Iterator[bytes]:
    """Requests, with this many seconds before each."""
    for i in range(count):
        time.sleep(pause)
        yield str(i).encode()


def numbers_then_break() -> Iterator[bytes]:
    """Requests, and then an error."""
    yield from numbers(3)
    broken(None)


class Caller(BaseCaller):
    """Makes calls, one after the other. It has a method for each kind of wish and each manner."""

    def do(self, wish: Wish) -> None:
        """Does as wished."""
        getattr(self, f"_{wish.kind}_{wish.manner}")(wish)

    # --- one request, one response, blocking ---------------------------------------------------------------------

    def _unary_plain(self, wish: Wish) -> None:
        with self._call(wish):
            answer = self._pool.unary_unary(wish.method)(wish.request, **self._how(wish))
            assert answer == wish.request

    _unary_failing = _unary_overdue = _unary_impatient = _unary_plain

    def _unary_unserializable(self, wish: Wish) -> None:
        with self._call(wish):
            self._pool.unary_unary(wish.method, request_serializer=broken)(wish.request, **self._how(wish))

    # --- futures --------------------------------------------------------------------------------------------------

    def _begin(self, wish: Wish, over: Any = None) -> Any:
        channel = self._pool if over is None else over
        timeout = max(wish.timeout, 1.0)
        return channel.unary_unary(wish.method).future(wish.request, timeout=timeout, wait_for_ready=wish.waits)

    def _begin_many(self, wishes: list[Wish], over: Any = None, **how: Any) -> list[Any]:
        """Begins futures at once; the end of each is recorded as it comes."""
        futures = []
        for wish in wishes:
            call = self._book.begin(self._name, wish, **how)
            future = self._begin(wish, over)
            future.add_done_callback(partial(self._ended, call))
            futures.append(future)
        return futures

    def _ended(self, call: Call, future: Any) -> None:
        try:
            self._book.end(call, future.exception())
        except grpc.FutureCancelledError as error:
            self._book.end(call, error)

    def crowd(self, wishes: list[Wish]) -> None:
        """Makes many calls at once."""
        _wait_for(self._begin_many(wishes))

    def _future_awaited(self, wish: Wish) -> None:
        with self._call(wish) as call:
            future = self._begin(wish)
            with self._book.cancellable(call, future.cancel):
                time.sleep(wish.pause)
                assert future.result() == wish.request

    def _future_notified(self, wish: Wish) -> None:
        with self._call(wish) as call:
            future = self._begin(wish)
            told = threading.Event()
            future.add_done_callback(lambda _: told.set())
            with self._book.cancellable(call, future.cancel):
                told.wait()
                assert future.result() == wish.request

    def _future_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            future = self._begin(wish)
            time.sleep(wish.pause)
            future.cancel()
            future.result()

    def _future_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            future = self._begin(wish)
            time.sleep(wish.pause)
            del future
            call.outcome = "dropped"

    # --- a stream of responses ------------------------------------------------------------------------------------

    def _stream(self, wish: Wish, **codecs: Any) -> Any:
        return self._pool.unary_stream(wish.method, **codecs)(wish.request, **self._how(wish))

    def _stream_whole(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._stream(wish)
            with self._book.cancellable(call, stream.cancel):
                assert list(stream) == expected(wish.size)

    def _stream_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._stream(wish)
            assert [next(stream) for _ in range(3)] == expected(3)
            del stream
            call.outcome = "dropped"

    def _stream_unread(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._stream(wish)
            time.sleep(wish.pause)
            del stream
            call.outcome = "dropped"

    def _stream_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            stream = self._stream(wish)
            next(stream)
            stream.cancel()
            list(stream)

    def _stream_undeserializable(self, wish: Wish) -> None:
        with self._call(wish):
            list(self._stream(wish, response_deserializer=broken))

    # --- streams of requests --------------------------------------------------------------------------------------

    def _collect(self, requests: Iterator[bytes], wish: Wish) -> Any:
        return self._pool.stream_unary(METHODS["collect"]).future(requests, **self._how(wish))

    def _collect_plain(self, wish: Wish) -> None:
        with self._call(wish):
            requests = numbers(wish.size, wish.pause / 10)
            answer = self._pool.stream_unary(METHODS["collect"])(requests, **self._how(wish))
            assert answer == b",".join(expected(wish.size))

    def _collect_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            future = self._collect(numbers(MANY, 0.01), wish)
            time.sleep(wish.pause)
            future.cancel()
            future.result()

    def _collect_broken(self, wish: Wish) -> None:
        with self._call(wish):
            self._collect(numbers_then_break(), wish).result()

    def _chat(self, requests: Iterator[bytes], wish: Wish) -> Any:
        return self._pool.stream_stream(METHODS["chat"])(requests, **self._how(wish))

    def _chat_whole(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._chat(numbers(wish.size, wish.pause / 10), wish)
            with self._book.cancellable(call, stream.cancel):
                assert list(stream) == expected(wish.size)

    def _chat_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._chat(numbers(MANY, 0.01), wish)
            assert [next(stream) for _ in range(2)] == expected(2)
            del stream
            call.outcome = "dropped"

    def _chat_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            stream = self._chat(numbers(MANY, 0.01), wish)
            next(stream)
            stream.cancel()
            list(stream)

    # --- leases ---------------------------------------------------------------------------------------------------

    def _ask(self, wish: Wish, streams: int | None) -> Any:
        """A lease, or `None` after a failure."""
        with self._call(wish, whole=streams is None):
            return self._granted(self._pool.acquire(wish.timeout, streams=streams))
        return None

    def _lease_calls(self, wish: Wish) -> None:
        lease = self._ask(wish, self._streams(wish))
        if lease is not None:
            with lease:
                for _ in range(2):
                    self._use(lease, wish)
                    time.sleep(wish.pause)

    _lease_tried = _lease_calls

    def _use(self, lease: Any, wish: Wish) -> None:
        timeout = max(wish.timeout, 1.0)
        with self._call(wish, **self._over(lease), due=time.monotonic() + timeout):
            answer = lease.unary_unary(wish.method)(wish.request, timeout=timeout, wait_for_ready=wish.waits)
            assert answer == wish.request

    def _lease_crowd(self, wish: Wish, *, early: bool = False) -> None:
        streams = self._streams(wish)
        lease = self._ask(wish, streams)
        if lease is None:
            return
        with lease:
            futures = self._begin_many([wish] * (streams or 3), lease, **self._over(lease))
            if not early:
                _wait_for(futures)
        _wait_for(futures)

    def _lease_early(self, wish: Wish) -> None:
        self._lease_crowd(wish, early=True)

    def _lease_discarded(self, wish: Wish) -> None:
        self.discard(wish, self._streams(wish))

    def discard(self, wish: Wish, streams: int | None) -> None:
        """Takes a lease, uses it, and discards it."""
        lease = self._ask(wish, streams)
        if lease is not None:
            self._use(lease, wish)
            lease.discard()

    # --- a pool of the caller's own -------------------------------------------------------------------------------

    def in_pool_that_closes(self, wishes: list[Wish], grace: float) -> None:
        """Makes calls over the caller's own pool, which is closed while they run; each must end."""
        futures = self._begin_many([wish for wish in wishes if wish.kind == "future"], **CLOSED_UNDER)
        streams = [(wish, time.monotonic(), self._stream(wish)) for wish in wishes if wish.kind == "stream"]
        time.sleep(wishes[0].pause)
        self._pool.close(grace)
        for wish, began, stream in streams:
            with self._call(wish, **CLOSED_UNDER) as call:
                call.began = began
                list(stream)
        _wait_for(futures)
        stats = self._pool.stats()
        assert (stats.in_flight, stats.waiting, stats.size) == (0, 0, 0), stats


def _wait_for(futures: list[Any]) -> None:
    for future in futures:
        # The book has recorded how it ended.
        with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
            future.result()


class Threads(World):
    """`grpcpool`, and callers that are threads."""

    name = "threads"

    def __init__(self, setting: Setting, book: Book) -> None:
        """The pool is not used yet."""
        super().__init__(setting, book)
        self.pool = grpcpool.insecure_channel(
            setting.target, RECONNECT_SOON, config=setting.config, name="soak", listeners=[setting.listener]
        )
        self._over = threading.Event()
        self._running: list[threading.Thread] = []
        self._guard = threading.Lock()

    def start_callers(self, round_: int) -> None:
        """Starts the callers."""
        self._over.clear()
        for i in range(CALLERS):
            self._run(f"caller {i}", partial(self._wish_on, f"caller {i}", round_))
        self._run("closer", partial(self._close_pools, round_))

    def stop_callers(self, within: float) -> bool:
        """Lets each caller end its call; returns whether all ended in time."""
        self._over.set()
        deadline = time.monotonic() + within
        with self._guard:
            running, self._running = self._running, []
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in running)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"soak-{name}", daemon=True)
        with self._guard:
            self._running = [other for other in self._running if other.is_alive()]
            self._running.append(thread)
            thread.start()

    def _wish_on(self, name: str, round_: int) -> None:
        caller, rng = Caller(name, self.pool, self.book), self.dice(name, round_)
        for wish in wishes(rng):
            caller.do(wish)
            if self._over.wait(rng.expovariate(1 / REST)):
                return

    def _close_pools(self, round_: int) -> None:
        rng = self.dice("closer", round_)
        while not self._over.wait(rng.uniform(0, 0.5)):
            config = grpcpool.PoolConfig(min_size=1, max_size=2, max_streams=4)
            pool = grpcpool.insecure_channel(self.setting.target, RECONNECT_SOON, config=config, name="short-lived")
            kinds = [rng.choice(["future", "stream"]) for _ in range(rng.randint(1, 12))]
            caller = Caller("closer", pool, self.book)
            caller.in_pool_that_closes([plain(rng, kind=kind) for kind in kinds], rng.choice([0.0, 0.0, 0.1]))

    def background(self, name: str, wishes: list[Wish]) -> None:
        """Starts all these calls at once, in one thread."""
        self._run(name, partial(Caller(name, self.pool, self.book).crowd, wishes))

    def discard(self, name: str, wish: Wish, streams: int | None) -> None:
        """Acquires and discards a lease, in a thread of its own."""
        self._run(name, partial(Caller(name, self.pool, self.book).discard, wish, streams))

    def cancel(self, call: Call, cancel: Callable[[], object]) -> None:
        """Cancels a call from this thread."""
        call.cancelled_by_chaos = True
        cancel()

    def do(self, work: Callable[[Any], object]) -> None:
        """Does it on this thread."""
        work(self.pool)

    def close(self) -> None:
        """Closes the pool."""
        self.pool.close()

    def left(self) -> list[str]:
        """Nothing: threads are checked for both worlds."""
        return []
