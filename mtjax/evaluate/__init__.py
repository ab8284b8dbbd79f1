"""Measures of models and decoders."""
