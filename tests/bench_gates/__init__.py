"""Costs, as counts of calls."""
