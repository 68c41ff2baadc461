"""Tests of the pool as a `grpc.Channel`: what becomes of calls, however they end."""
