"""Canvases of masks that become text: on a terminal, as an animated picture, and as a page."""
