"""Likelihood bounds of diffusion models: from all maskings of a text, or from samples of them."""
