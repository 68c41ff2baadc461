"""The commands of ``grpcpool`` that need the extra ``cli``: ``probe`` inspects a server, ``bench`` measures calls.

The pool imports nothing of it. `grpcpool.__main__` uses it if the extra is installed.
"""
