"""What a pool tells those who listen: one hook for each event, each with one small frozen object.

Events are for people and dashboards. They are told after the fact, without the pool's lock; two threads may tell
theirs in either order.
"""

from __future__ import annotations

from .events import (
    Closed,
    Draining,
    Granted,
    Leaked,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)


class Listener:
    """Hooks that do nothing; override those of interest and pass an instance as `listeners=[...]`.

    Hooks are synchronous and must be quick: they run on whichever thread the event happened on, gRPC's callback
    threads included. What they raise is logged and goes no further. A listener that refers to its pool keeps
    it until `close()`, for it is to be told of the last connections, too.
    """

    def opening(self, event: Opening) -> None:
        """A connection is being made."""

    def opened(self, event: Opened) -> None:
        """A connection is ready and primed."""

    def open_failed(self, event: OpenFailed) -> None:
        """A connection could not be made."""

    def closed(self, event: Closed) -> None:
        """A connection left the pool."""

    def draining(self, event: Draining) -> None:
        """A connection takes no new calls and closes when its last ends."""

    def granted(self, event: Granted) -> None:
        """A waiter got its place, after a wait."""

    def timed_out(self, event: TimedOut) -> None:
        """A waiter waited in vain."""

    def rejected(self, event: Rejected) -> None:
        """An acquire or call was refused at once, for too many waited."""

    def refused_stream(self, event: RefusedStream) -> None:
        """A server refused a call for its own limit of streams."""

    def released(self, event: Released) -> None:
        """A lease was given back. A pool that nobody asks to tell this does not measure it."""

    def leaked(self, event: Leaked) -> None:
        """A lease is held for suspiciously long."""


HOOKS: dict[type[PoolEvent], str] = {
    Opening: "opening",
    Opened: "opened",
    OpenFailed: "open_failed",
    Closed: "closed",
    Draining: "draining",
    Granted: "granted",
    TimedOut: "timed_out",
    Rejected: "rejected",
    RefusedStream: "refused_stream",
    Released: "released",
    Leaked: "leaked",
}
"""The hook that tells of each event."""


def hears_releases(listener: Listener) -> bool:
    """Whether a listener has a hook of its own for `Released`."""
    return type(listener).released is not Listener.released
