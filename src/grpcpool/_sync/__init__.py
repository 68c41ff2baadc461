"""The threaded driver: pools, leases and calls under `grpc`."""
