"""Elasticity and resilience: pools of both worlds grow, shrink, rotate, and recover from losses, with real servers."""
