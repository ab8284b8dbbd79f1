"""How much worse texts of a method are than those of another one, from the same prompts."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mtjax.evaluate.generative import JudgedText


@dataclasses.dataclass(frozen=True)
class ComparedQuality:
  """Relative differences of two figures from a reference's, with their standard errors.

  Text that repeats itself is probable, so either figure means little without the other.
  """

  bits: float  # (bits per byte) / (the reference's) - 1; above 0: less probable to the judge
  bits_error: float
  entropy: float  # (entropy of tokens) / (the reference's) - 1; below 0: less varied
  entropy_error: float

  def within(self, tolerance: float) -> bool:
    """Returns whether neither figure is worse by more than `tolerance`, whatever the errors are."""
    return self.bits <= tolerance and self.entropy >= -tolerance


def compare_quality(
  judged: Sequence[JudgedText], reference: Sequence[JudgedText]
) -> ComparedQuality:
  """Returns how texts differ from those that the reference wrote for the same prompts.

  Errors are those of a ratio of sums over pairs of texts, by linearisation, so that what a prompt
  does to both texts of its pair cancels. Raises ValueError for other numbers of texts than pairs,
  and for fewer than two pairs.
  """
  if len(judged) != len(reference) or len(judged) < 2:
    raise ValueError(
      f"pairs of texts are compared, at least two of them, got {len(judged)} texts and "
      f"{len(reference)} of the reference"
    )
  mine, theirs = _columns(judged), _columns(reference)
  bits = _ratio(mine["nats"], mine["bytes"])
  other_bits = _ratio(theirs["nats"], theirs["bytes"])
  entropy = _ratio(mine["entropy"], np.ones(len(judged)))
  other_entropy = _ratio(theirs["entropy"], np.ones(len(judged)))
  return ComparedQuality(
    bits[0] / other_bits[0] - 1,
    _error(bits, other_bits),
    entropy[0] / other_entropy[0] - 1,
    _error(entropy, other_entropy),
  )


def _columns(judged) -> dict[str, np.ndarray]:
  names = ("nats", "bytes", "entropy")
  return {name: np.array([getattr(one, name) for one in judged], float) for name in names}


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, np.ndarray]:
  """Returns a ratio of two sums, and what each text adds to its relative deviation."""
  ratio = float(above.sum() / below.sum())
  return ratio, (above - ratio * below) / above.sum()


def _error(mine, theirs) -> float:
  """Returns the standard error of the quotient of two ratios over the same prompts."""
  apart = mine[1] - theirs[1]
  return math.sqrt(len(apart)) * float(apart.std(ddof=1)) * mine[0] / theirs[0]
