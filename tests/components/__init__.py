"""The pool before real servers and proxies that other people wrote; `.ci/components` installs them."""
