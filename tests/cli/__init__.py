"""Tests of the commands of the extra ``cli``."""
