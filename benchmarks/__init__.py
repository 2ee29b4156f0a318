"""Measures Pellucid against the bare model and against its rivals: `python -m benchmarks SUITE`."""
