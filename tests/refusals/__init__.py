"""A server that refuses streams at its own limit: callers see it only if their requests are an iterator."""
