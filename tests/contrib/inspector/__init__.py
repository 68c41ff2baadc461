"""Tests of the live page: what it answers, and what a browser makes of it."""
