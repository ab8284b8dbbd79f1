"""Losses, one file each, and the choice of one by a run's settings."""
