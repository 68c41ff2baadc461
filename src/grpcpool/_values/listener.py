"""The hooks that receive a pool's events: one for each event, with one small frozen object."""

from __future__ import annotations

from collections.abc import Iterable

from .events import (
    AddressesChanged,
    Avoided,
    Closed,
    Draining,
    Granted,
    Leaked,
    LookUpFailed,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    Recovered,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)


class Listener:
    """Hooks that do nothing; override those of interest and pass an instance as `listeners=[...]`.

    Hooks are synchronous and must be quick: they run on the thread on which the event happened, which may be one of
    gRPC's callback threads. Exceptions are logged and not raised further. A listener that refers to its pool keeps the
    pool alive until `close()`, so that it also receives the events of the last connections.
    """

    def opening(self, event: Opening) -> None:
        """A connection is being opened."""

    def opened(self, event: Opened) -> None:
        """A connection is ready and primed."""

    def open_failed(self, event: OpenFailed) -> None:
        """A connection failed to open."""

    def lost(self, event: Lost) -> None:
        """A connection in service is down."""

    def recovered(self, event: Recovered) -> None:
        """A connection that was lost is up again."""

    def avoided(self, event: Avoided) -> None:
        """A connection ranks behind others for a while: a call to its server failed as calls do on a sick server."""

    def closed(self, event: Closed) -> None:
        """A connection left the pool."""

    def draining(self, event: Draining) -> None:
        """A connection takes no new calls and closes when its last call ends."""

    def granted(self, event: Granted) -> None:
        """A waiter got a place."""

    def timed_out(self, event: TimedOut) -> None:
        """A waiter timed out."""

    def addresses_changed(self, event: AddressesChanged) -> None:
        """A look-up has found other addresses of the target than the one before."""

    def look_up_failed(self, event: LookUpFailed) -> None:
        """The target's addresses could not be looked up; those that are known stay."""

    def rejected(self, event: Rejected) -> None:
        """An acquire or call failed at once because the queue was full."""

    def refused_stream(self, event: RefusedStream) -> None:
        """A server refused a call, at its stream limit or to shed load."""

    def released(self, event: Released) -> None:
        """A lease was released. The pool measures this only if a listener overrides this hook."""

    def leaked(self, event: Leaked) -> None:
        """A lease has been held for longer than `PoolConfig.leak_threshold`."""


HOOKS: dict[type[PoolEvent], str] = {
    Opening: "opening",
    Opened: "opened",
    OpenFailed: "open_failed",
    Lost: "lost",
    Recovered: "recovered",
    Avoided: "avoided",
    Closed: "closed",
    Draining: "draining",
    AddressesChanged: "addresses_changed",
    LookUpFailed: "look_up_failed",
    Granted: "granted",
    TimedOut: "timed_out",
    Rejected: "rejected",
    RefusedStream: "refused_stream",
    Released: "released",
    Leaked: "leaked",
}
"""The hook for each event."""


def checked_listeners(listeners: object) -> tuple[Listener, ...]:
    """Returns the listeners of a pool.

    Raises:
        TypeError: It is a single listener, or one of them is something else.
    """
    given = tuple(listeners) if isinstance(listeners, Iterable) else None
    if given is None or not all(isinstance(listener, Listener) for listener in given):
        raise TypeError(f"listeners must be a list of grpcpool.Listener objects, not {listeners!r}")
    return given


def hears_releases(listener: Listener) -> bool:
    """Returns whether a listener overrides the hook for `Released`."""
    return type(listener).released is not Listener.released
