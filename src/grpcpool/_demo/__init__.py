"""The demonstration, ``python -m grpcpool demo``: shows what a pool does, with real servers. Needs only grpcio.

Each part has a module: `limit`, `sick`, `restart`, `leases`; `run` shows them in that order. The parts speak to a
`world`, which is `threads` or `tasks`.
"""
