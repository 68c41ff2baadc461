"""Every fact about gRPC that the pool depends on, with its guard and its fallback."""
