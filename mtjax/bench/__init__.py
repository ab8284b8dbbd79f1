"""Benchmarks: measurements of time, interleaved and against named systems."""
