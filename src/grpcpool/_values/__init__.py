"""Settings, errors, snapshots and events: what every other layer speaks."""
