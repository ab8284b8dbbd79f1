"""Drafters that run a model: a draft model of its own, or layers of the target."""
