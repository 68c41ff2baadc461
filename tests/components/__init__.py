"""The pool with real servers and proxies of other projects; `.ci/components` installs them."""
