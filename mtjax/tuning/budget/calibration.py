"""Calibration of confidences: survival that is true as often as it says."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

TEMPERATURES = np.geomspace(0.1, 10.0, 201)


def calibration_error(
  probability: Float[np.ndarray, " M"], happened: Bool[np.ndarray, " M"], bins: int = 15
) -> float:
  """Returns the expected calibration error: how far shares are from what was said, on average.

  sum over bins of (events in the bin / M) |share that happened - mean probability|, with bins of
  equal width (Guo et al. 1706.04599, section 2). With finite M it is above 0 also for true
  probabilities.
  """
  place = np.minimum((probability * bins).astype(int), bins - 1)
  difference = np.bincount(place, weights=probability - happened, minlength=bins)
  return float(np.abs(difference).sum() / len(probability))


def calibrated_survival(
  logits: Float[Array, "B K"], temperature: Float[Array, " K"]
) -> Float[Array, "B K"]:
  """Returns the probability that each draft and all before it are accepted.

  cumulative products of sigmoid(logits[b, k] / temperature[k]), where logits are a drafter's
  confidence (DSpark 2607.05147), or log p - log(1 - p) of a probability p that was
  known before the draft.
  """
  return jnp.cumprod(jax.nn.sigmoid(logits / temperature), axis=-1)


def fit_temperatures(
  logits: Float[np.ndarray, "M K"],
  accepted: Int[np.ndarray, " M"],
  *,
  grid: Float[np.ndarray, " T"] = TEMPERATURES,
) -> Float[np.ndarray, " K"]:
  """Returns one temperature per position, from the first to the last: DSpark's sequential scaling.

  Position by position the temperature of `grid` is taken for which the calibration error of the
  survival up to there is least, with those before it fixed (2607.05147). Of equal
  errors the one nearest to 1 is taken.

  logits: as in `calibrated_survival`, of M drafts. accepted: how many tokens of each draft were
  accepted, before the first refusal. Fit on other drafts than those that are judged. Raises
  ValueError for shapes that differ and for counts outside of 0 to K.
  """
  drafts, length = logits.shape
  if accepted.shape != (drafts,) or np.any(accepted < 0) or np.any(accepted > length):
    raise ValueError(
      f"accepted must be {drafts} numbers from 0 to {length}, one per draft: got shape "
      f"{accepted.shape}, {accepted.min()} to {accepted.max()}"
    )
  if not np.all(np.isfinite(logits)) or not np.all(grid > 0):
    raise ValueError("logits must be finite and temperatures above 0")
  nearest_first = grid[np.argsort(np.abs(np.log(grid)), kind="stable")]
  survived, out = np.ones(drafts), []
  for position in range(length):
    happened = accepted > position
    options = survived / (1 + np.exp(-logits[:, position] / nearest_first[:, None]))
    best = int(np.argmin([calibration_error(one, happened) for one in options]))
    survived = options[best]
    out.append(nearest_first[best])
  return np.array(out)
