"""Filling canvases: the methods, their rounds, and the program that runs them."""
