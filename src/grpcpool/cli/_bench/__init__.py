"""``grpcpool bench``: the same calls over one channel, over gRPC's own connection scaling, and over a pool.

It is a closed loop: each caller makes his next call when his last has ended. A slow server is therefore asked less
often, and the latencies are those of the calls that were made, corrected for nothing. It compares ways to call, and
does not tell what users would see who do not wait for each other.
"""
