"""Attention kernels of mtjax. Importable with jax and numpy alone."""
