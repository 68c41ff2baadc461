"""What things cost, as counts of calls."""
