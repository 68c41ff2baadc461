"""The programs under `examples/`, run as their users run them."""
