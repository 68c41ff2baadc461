"""The demonstration, ``python -m grpcpool demo``: what a pool does, shown on a real server. Needs grpcio alone."""
