"""Verdicts of trees under rates of acceptance, sampled."""

import numpy as np


def walk(shape, rates, rows, rng):
  """Returns paths [rows, height + 1] and their counts, as verifiers return them."""
  children, breadth = shape.children(), max(shape.breadth, 1)
  child = np.full((shape.size, breadth), -1)
  below = np.zeros((shape.size, breadth))
  for node, kids in enumerate(children):
    child[node, : len(kids)] = kids
    below[node, : len(kids)] = [
      rates[shape.depth[kid] - 1, shape.rank[kid]]
      if shape.depth[kid] <= len(rates) and shape.rank[kid] < rates.shape[1]
      else 0.0
      for kid in kids
    ]
  below = np.cumsum(below, axis=1)
  path, count = np.zeros((rows, shape.height + 1), int), np.ones(rows, int)
  node, going = np.zeros(rows, int), np.ones(rows, bool)
  for depth in range(1, shape.height + 1):
    place = np.sum(rng.random(rows)[:, None] >= below[node], axis=1)
    following = child[node, np.minimum(place, breadth - 1)]
    going = going & (place < breadth) & (following >= 0)
    node = np.where(going, following, node)
    path[:, depth] = np.where(going, node, 0)
    count += going
  return path, count
