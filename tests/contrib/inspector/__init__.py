"""Tests of the live page: its answers, and how it works in a browser."""
