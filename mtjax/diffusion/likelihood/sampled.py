"""Estimates of the likelihood of masked diffusion from sampled maskings, for texts of any length.

A block-causal model's log p is a sum over blocks, each given the clean blocks before it: `block[i]`
is the number of the block that token i is in, from 0 and rising (None: all in one). Conditionals
then depend on the clean tokens of an entry's own block and on all of the earlier blocks, so that
one masking serves all blocks at once.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from mtjax.diffusion.likelihood.conditionals import Conditionals, masked_at, weight_at
from mtjax.diffusion.noising.schedules import NoiseSchedule

Block = Int[np.ndarray, " L"]


def sampled_bound(
  conditionals: Conditionals,
  size: int,
  *,
  samples: int,
  seed: int = 0,
  schedule: NoiseSchedule | None = None,
  block: Block | None = None,
) -> tuple[float, float]:
  """Estimates `exact_bound` without bias from `samples` maskings; also returns a standard error.

  Without a schedule, the number k of masked tokens is uniform on 1..size, and a masking counts
  size / k (LLaDA 2502.09992, eq. 6). With one, a time is uniform on (0, 1), tokens are masked
  independently, and it counts -alpha' / (1 - alpha) (MDLM 2406.07524, eq. 10); its variance is
  larger. Both are stratified over samples, which makes the error of independent samples rather too
  large; it is NaN for one sample. Raises ValueError for fewer than one sample or token.
  """
  groups = _groups(size, block, samples=samples)
  rng = np.random.default_rng(seed)
  # On (0, 1], one in each stratum.
  t = 1 - groups.strata(rng, samples)
  if schedule is None:
    count = np.clip(np.ceil(groups.sizes * t), 1, groups.sizes)
    masks = groups.ranks(rng, samples) < count[:, :, None]
    return groups.estimate(conditionals, masks, groups.sizes / count)
  masks = rng.random((samples, *groups.index.shape)) < masked_at(schedule, t)[:, :, None]
  return groups.estimate(conditionals, masks, weight_at(schedule, t))


def sampled_discrete_bound(
  conditionals: Conditionals,
  size: int,
  *,
  steps: int,
  samples: int,
  seed: int = 0,
  schedule: NoiseSchedule = NoiseSchedule(),
  block: Block | None = None,
) -> tuple[float, float]:
  """Estimates `discrete_bound` without bias from `samples` maskings; also returns a standard error.

  A masking is that of the end of one step, uniform over steps and stratified over samples, and
  counts steps (alpha_s - alpha_t) / (1 - alpha_t). Raises ValueError as `sampled_bound` does, and
  for fewer than one step.
  """
  groups = _groups(size, block, samples=samples, steps=steps)
  rng = np.random.default_rng(seed)
  step = np.floor(groups.strata(rng, samples) * steps)
  before, after = (masked_at(schedule, (step + end) / steps) for end in (0, 1))
  masks = rng.random((samples, *groups.index.shape)) < after[:, :, None]
  return groups.estimate(conditionals, masks, steps * (after - before) / after)


def order_average(
  conditionals: Conditionals,
  size: int,
  *,
  orders: int,
  seed: int = 0,
  block: Block | None = None,
) -> tuple[float, float]:
  """Returns the mean of log p over `orders` random orders, and its standard error.

  It estimates `exact_bound` without bias (ARDM 2110.02037, eq. 2), at one pass for each token of an
  order (of the longest block). Raises ValueError for fewer than one order or token.
  """
  groups = _groups(size, block, orders=orders)
  rank = groups.ranks(np.random.default_rng(seed), orders)
  width = rank.shape[2]
  passes = np.arange(width)[None, :, None, None]
  open_, next_ = (op(rank[:, None], passes) for op in (np.greater_equal, np.equal))
  each = groups.conditionals(conditionals, open_.reshape(-1, *rank.shape[1:]))
  each = each.reshape(next_.shape)
  return mean_and_error(np.where(next_, each, 0).sum(axis=(1, 2, 3)))


def pseudo_likelihood(
  conditionals: Conditionals, size: int, *, block: Block | None = None
) -> float:
  """Returns the sum of log p(x_i | all other tokens) (of its block, and of those before it).

  It is NO bound and no density: where tokens predict each other, every one of them is counted as
  known already. Published as the bits per byte of a diffusion model it is too good, by a factor of
  two or more. Raises ValueError for a text without tokens.
  """
  groups = _groups(size, block)
  width = groups.index.shape[1]
  masks = np.broadcast_to(np.eye(width, dtype=bool)[:, None], (width, *groups.index.shape))
  return float(groups.conditionals(conditionals, masks).sum())


def mean_and_error(values: Float[np.ndarray, " N"]) -> tuple[float, float]:
  """Returns the mean, and its standard error if the values are independent; NaN for one value."""
  error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
  return float(values.mean()), float(error)


@dataclasses.dataclass(frozen=True)
class _Groups:
  """The tokens of G blocks in rows of as many places as the longest one has."""

  index: Int[np.ndarray, "G W"]  # of a token
  valid: Bool[np.ndarray, "G W"]
  size: int

  @property
  def sizes(self) -> Int[np.ndarray, " G"]:
    return self.valid.sum(axis=1)

  def strata(self, rng, samples: int) -> Float[np.ndarray, "S G"]:
    """Samples from [0, 1), of which each block has one in each of `samples` strata."""
    shape = (samples, len(self.index))
    lot = rng.random(shape).argsort(axis=0)
    return (lot + rng.random(shape)) / samples

  def ranks(self, rng, samples: int) -> Int[np.ndarray, "S G W"]:
    """Samples random orders of each block; places without a token come last."""
    lot = np.where(self.valid, rng.random((samples, *self.index.shape)), np.inf)
    return lot.argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")

  def conditionals(self, conditionals, masks: Bool[np.ndarray, "N G W"]):
    """Returns the conditionals in rows of blocks, 0 where no token is."""
    masks = masks & self.valid
    flat = np.zeros((len(masks), self.size), bool)
    flat[:, self.index[self.valid]] = masks[:, self.valid]
    each = np.asarray(conditionals(flat), np.float64)
    return np.where(masks, each[:, self.index], 0)

  def estimate(self, conditionals, masks, weight: Float[np.ndarray, "S G"]):
    """Returns the mean over samples of the weighted sums of blocks, and its error."""
    sums = self.conditionals(conditionals, masks).sum(axis=2)
    return mean_and_error((weight * sums).sum(axis=1))


def _groups(size: int, block: Block | None, **counts: int) -> _Groups:
  counts = {"size": size, **counts}
  if min(counts.values()) < 1:
    given = ", ".join(f"{name} {count}" for name, count in counts.items())
    raise ValueError(f"{' and '.join(counts)} must be at least 1, got {given}")
  block = np.zeros(size, int) if block is None else np.asarray(block)
  if block.shape != (size,) or block[0] != 0 or not np.isin(np.diff(block), (0, 1)).all():
    raise ValueError(f"block must have the number of each of {size} tokens' blocks, from 0 rising")
  lengths = np.bincount(block)
  place = np.arange(lengths.max())
  index = (np.cumsum(lengths) - lengths)[:, None] + place
  valid = place < lengths[:, None]
  return _Groups(np.where(valid, index, 0), valid, size)
