"""Launchers of the benchmarks."""
