"""Likelihoods of any-subset models: exact densities, bounds, marginals over subsets."""
