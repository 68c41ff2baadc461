"""Tests of the machine and its parts: pure, so without gRPC, threads, clocks or sleep."""
