"""Losses: one file each, and the one that a run's settings name."""
