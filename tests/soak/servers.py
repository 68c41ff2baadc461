"""The servers of the soak: they bear many calls, send GOAWAY to old connections, and report what they run."""

from __future__ import annotations

from support import servers


class Server(servers.Server):
    """A server that keeps no connection for long."""

    def __init__(self, *, age: float, limit: int | None = None) -> None:
        """Does not start it yet.

        Args:
            age: Seconds after which it sends GOAWAY to a connection.
            limit: Calls on one connection beyond which it refuses them.
        """
        limits = {} if limit is None else {"max_concurrent_streams": limit}
        super().__init__({"max_connection_age_ms": round(age * 1000), **limits})
        self.limit = limit
