"""Noise of discrete diffusion: schedules, times of a batch, and the forward process."""
