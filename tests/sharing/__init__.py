"""Tests of pools that are shared, sent to other processes, and made by patches."""
