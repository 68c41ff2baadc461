"""Which implementation of gRPC a server is, by its words about an unknown method."""

from __future__ import annotations


def server_by_its_words(details: str) -> str | None:
    """The server that answers a call of an unknown method with these details; `None` if it is not known by them."""
    if details == "Method not found!":
        return "gRPC Python"
    if details.startswith("unknown service"):
        return "gRPC Go"
    if details.startswith("Method not found: "):
        return "gRPC Java"
    return None
