"""A server that refuses streams for its own limit: callers do not see it unless their requests are an iterator."""
