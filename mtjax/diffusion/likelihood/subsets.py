"""Bounds and densities of masked diffusion from all maskings of a short text."""

import math

import numpy as np
from jaxtyping import Float

from mtjax.anysubset.likelihood.masked_bound import weight_of_subset
from mtjax.diffusion.likelihood.conditionals import Conditionals, all_masks, masked_at
from mtjax.diffusion.noising.schedules import NoiseSchedule


def exact_bound(conditionals: Conditionals, size: int) -> float:
  """Returns the continuous-time bound of log p, in nats; it is the same for every schedule.

  The sum over masks M of w(|M|) times the sum of the masked conditionals, where
  w(k) = 1 / (k C(size, k)) (`mtjax.anysubset.likelihood.masked_bound`). It is also the mean over
  all orders of log p in that order (2110.02037), so that `order_log_density` is at least as large.
  """
  masks = all_masks(size)
  weights = [weight_of_subset(size, int(k)) for k in masks.sum(axis=1)]
  return float(np.dot(weights, conditionals(masks).sum(axis=1)))


def discrete_bound(
  conditionals: Conditionals, size: int, steps: int, schedule: NoiseSchedule = NoiseSchedule()
) -> float:
  """Returns the bound of a process of `steps` equal steps of time, in nats.

  sum over steps from s to t of (alpha_s - alpha_t) / (1 - alpha_t) E[masked conditionals at t]
  (MD4 2406.04329, eq. 4), for schedules that end with every token masked. It bounds
  `step_log_density`, the density of another model than that of one token at a time, and tends to
  `exact_bound` as steps grow. One step is all tokens at once, independent of each other, and then
  it is no bound but the density. Raises ValueError for fewer than one step.
  """
  masks = all_masks(size)
  masked = _grid(schedule, steps)
  before, after = masked[:-1], masked[1:]
  count = np.arange(1, size + 1)[:, None]
  weight = (after - before) * after ** (count - 1) * (1 - after) ** (size - count)
  sums = conditionals(masks).sum(axis=1)
  return float(np.dot(weight.sum(axis=1)[masks.sum(axis=1) - 1], sums))


def order_log_density(conditionals: Conditionals, size: int) -> float:
  """Returns log p of the text, in nats, if its tokens are decided one by one in a random order.

  That is what ancestral sampling does in the limit of many steps. By dynamic programming over the
  subsets M of tokens that are still masked: f(M) = mean over i in M of p(x_i | all but M) f(M - i),
  and p is f of all tokens: the mean over orders of p, where `exact_bound` is that of log p.
  """
  each = _each(conditionals, size)
  log_f = np.zeros(2**size)
  for mask in range(1, 2**size):
    i = _members(mask, size)
    log_f[mask] = _log_sum(each[mask, i] + log_f[mask ^ (1 << i)]) - math.log(len(i))
  return float(log_f[-1])


def step_log_density(
  conditionals: Conditionals, size: int, steps: int, schedule: NoiseSchedule = NoiseSchedule()
) -> float:
  """Returns log p of the text, in nats, by ancestral sampling in `steps` equal steps of time.

  In a step from t to s each masked token is decided with probability (alpha_s - alpha_t) / (1 -
  alpha_t), independently of the others (MD4 2406.04329, eq. 3). By dynamic programming over the
  subsets M that are masked: f_s(M) is the sum over what a step decides of M, of its probability
  times f of the rest at the step's end. Raises ValueError for fewer than one step.
  """
  each = _each(conditionals, size)
  masked = _grid(schedule, steps)
  number = np.array([m.bit_count() for m in range(2**size)])
  bits = (np.arange(2**size)[:, None] >> np.arange(size)) % 2
  # Of each masked subset, the parts of it that a step may decide, and log p of their tokens.
  parts = [np.flatnonzero((np.arange(2**size) & ~m) == 0) for m in range(2**size)]
  decided = [bits[part] @ each[m] for m, part in enumerate(parts)]
  log_f = np.where(number == 0, 0.0, -np.inf)
  for before, after in zip(masked[:-1], masked[1:], strict=True):
    go, stay = (after - before) / after, before / after
    new = np.empty_like(log_f)
    for m, part in enumerate(parts):
      chance = go ** number[part] * stay ** (number[m] - number[part])
      with np.errstate(divide="ignore"):
        new[m] = _log_sum(np.log(chance) + decided[m] + log_f[m ^ part])
    log_f = new
  return float(log_f[-1])


def bits_per_byte(nats: float, text: str) -> float:
  """Returns bits per byte of UTF-8 of a text whose log p is `nats`. Raises ValueError for ""."""
  size = len(text.encode())
  if not size:
    raise ValueError("an empty text has no bits per byte")
  return -nats / (math.log(2) * size)


def _each(conditionals, size) -> Float[np.ndarray, "N L"]:
  """Returns the conditionals of every masking, by its number; number 0 has none."""
  each = np.asarray(conditionals(all_masks(size)), np.float64)
  return np.concatenate([np.zeros((1, size)), each])


def _grid(schedule, steps) -> Float[np.ndarray, " T"]:
  if steps < 1:
    raise ValueError(f"steps must be at least 1, got {steps}")
  return masked_at(schedule, np.arange(steps + 1) / steps)


def _members(mask: int, size: int):
  return np.array([i for i in range(size) if mask >> i & 1])


def _log_sum(x: Float[np.ndarray, " N"]) -> float:
  top = x.max()
  return -np.inf if np.isneginf(top) else float(top + np.log(np.exp(x - top).sum()))
