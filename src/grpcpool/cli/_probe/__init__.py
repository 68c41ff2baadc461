"""``grpcpool probe``: what a server announces and serves, found out over a connection of our own.

gRPC tells none of it: not the limit of streams, not the protocol chosen, not how far away the server is. So this speaks
HTTP/2 itself. It is no client for anything else.
"""
