"""The commands of ``grpcpool`` that need the extra ``cli``: ``probe`` looks at a server, ``bench`` measures calls.

Nothing here is imported by the pool. `grpcpool.__main__` uses it where it is installed.
"""
