"""Chaos under load, for as long as one likes: what a pool promises, demanded while everything goes wrong."""
