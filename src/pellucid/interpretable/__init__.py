"""Models that a person can read."""
