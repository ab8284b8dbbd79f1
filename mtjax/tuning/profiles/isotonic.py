"""Isotonic regression. SciPy has it too, and takes a second or more to import."""

import numpy as np
from jaxtyping import Float


def isotonic(
  values: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
  """Returns the numbers that do not fall and have the least weighted squared distance to `values`.

  Neighbours that fall are pooled into their weighted mean until none does (Ayer et al., An
  empirical distribution function for sampling with incomplete information, 1955). Weights must be
  above 0.
  """
  pools: list[tuple[float, float, int]] = []  # mean, weight, number of values
  for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
    pools.append((value, weight, 1))
    while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
      mean, mass, count = pools.pop()
      before, its_mass, its_count = pools.pop()
      both = mass + its_mass
      pools.append(((mean * mass + before * its_mass) / both, both, count + its_count))
  return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])
