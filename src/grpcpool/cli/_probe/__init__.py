"""``grpcpool probe``: reports what a server announces and serves, over an HTTP/2 connection of its own.

gRPC exposes none of this: not the stream limit, not the negotiated protocol, not the round-trip time. So the probe
speaks HTTP/2 itself. It is not a general HTTP/2 client.
"""
