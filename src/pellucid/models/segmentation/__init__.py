"""Segmentation networks: a score of each class at each place."""
