"""Tests of connections that are dealt out over the addresses of a target, with real servers and a DNS server."""
