"""Sweeps: one program, run with several settings and seeds."""
