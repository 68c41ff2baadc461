"""The pool under real SDKs."""
