"""``grpcpool bench``: the same calls over one channel, over gRPC's own connection scaling, and over a pool.

It is a closed loop: each caller makes its next call when its last one has ended. So a slow server receives fewer calls,
and latencies are those of the calls that were made, without correction for omitted ones. The numbers compare ways to
call; they do not predict the latencies of an open system, where callers do not wait for each other.
"""
