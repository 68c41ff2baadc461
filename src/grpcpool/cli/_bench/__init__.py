"""``grpcpool bench``: the same calls over one channel, over gRPC's own connection scaling, and over a pool.

In a closed loop, on threads, each caller makes its next call when its last one has ended. So a slow server receives
fewer calls, and latencies are those of the calls that were made, without correction for omitted ones. The numbers
compare ways to call.

In an open loop, on asyncio, calls are due at random times, whatever has become of earlier ones, as from many
independent users. Latencies begin when a call is due, so that a standstill shows in every call that was due meanwhile.
"""
