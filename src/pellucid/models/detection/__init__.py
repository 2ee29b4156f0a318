"""Detectors: what they answer (`Detections`), how heads are read, and the adapters that give both."""
