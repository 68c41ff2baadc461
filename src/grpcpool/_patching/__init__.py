"""Makes gRPC's constructors create pools, for libraries that build their channels themselves: `grpcpool.patched`."""
