"""The time of denoising, and what its approximations cost and change."""
