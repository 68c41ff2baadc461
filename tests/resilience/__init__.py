"""Elasticity and resilience: how pools of both worlds grow, shrink, rotate, and get over losses, with real servers."""
