"""Benchmarks: what measures time, interleaved and against named systems."""
