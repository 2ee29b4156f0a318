"""Ground truth: inputs whose evidence is known, and how well a map finds it."""
