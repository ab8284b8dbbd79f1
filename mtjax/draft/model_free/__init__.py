"""Drafters that run no model: they copy what the text, a store or the target said before."""
