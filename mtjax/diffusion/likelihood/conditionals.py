"""Conditionals of masked diffusion, whose maskings of a text all estimators of likelihood use."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from mtjax.diffusion.noising.schedules import NoiseSchedule

# Masks [N, L] of one text -> log p(x_i | clean tokens) of each masked entry i, and 0 at clean ones.
# A table serves as well as a network.
Conditionals = Callable[[Bool[np.ndarray, "N L"]], Float[np.ndarray, "N L"]]
MAX_SIZE = 12  # limit of what enumerates maskings: 4095 of them


def all_masks(size: int) -> Bool[np.ndarray, "N L"]:
  """Returns all maskings of a text but the empty one; bit i of row m is bit i of m + 1.

  Raises ValueError for more than 12 tokens, or none.
  """
  if not 1 <= size <= MAX_SIZE:
    raise ValueError(
      f"a text of {size} tokens has no masking or too many: use 1 to {MAX_SIZE}, or sampled_bound"
    )
  return (np.arange(1, 2**size)[:, None] >> np.arange(size)) % 2 == 1


def masked_at(schedule: NoiseSchedule, t: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
  """Returns the probability of masking at times t, as exactly as the schedule computes it."""
  return np.asarray(schedule.masked(t), np.float64)


def weight_at(schedule: NoiseSchedule, t: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
  """Returns the weight of a masked token at times t, likewise."""
  return np.asarray(schedule.weight(t), np.float64)
