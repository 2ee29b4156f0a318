"""Feature visualisation: what the units of a model have learned."""
