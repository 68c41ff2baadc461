"""Stories as data, which the machine and the drivers must pass alike."""
