"""Tests of the commands that need the extra ``cli``."""
