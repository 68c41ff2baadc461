"""Optional integrations: each needs the extra of its name, and nothing else of the package imports them."""
