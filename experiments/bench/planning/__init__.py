"""Launchers of the benchmarks of plans."""
