"""Tests of the machine and its neighbours: pure, so without gRPC, threads, clocks or sleep."""
