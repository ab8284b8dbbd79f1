"""The tables of denoising: rules of a pass, caches, and methods made of them, by name."""
