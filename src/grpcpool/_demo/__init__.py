"""The demonstration, ``python -m grpcpool demo``: shows what a pool does, with a real server. Needs only grpcio."""
