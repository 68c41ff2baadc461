"""Chaos under load, for any length of time: the pool must keep its promises while everything goes wrong."""
