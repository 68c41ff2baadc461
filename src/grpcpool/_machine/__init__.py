"""The pool as a pure state machine; start with `machine.py`."""
