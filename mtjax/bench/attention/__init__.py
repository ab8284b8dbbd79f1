"""Benchmarks of attention: on this processor, and on an accelerator."""
