"""Stories as data, which the machine and both drivers must pass."""
