"""The best position of every run of masks, so that neighbours are seldom decided together."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import ProbabilityTransfer
from mtjax.diffusion.ranking import ranks
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, Range, rule
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Hierarchy(ProbabilityTransfer):
  """In every maximal run of open positions the best one, if its score is above low_threshold.

  Besides, all positions above `threshold`, and the best position of the row in any case (dInfer's
  `get_transfer_index_hierarchy_fast_v2`). The published code decides nothing, for ever, if the best
  score equals low_threshold exactly.
  """

  threshold: PerRow = 0.9
  low_threshold: PerRow = 0.4
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY, "low_threshold": SHARE}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    rank = ranks(score, view.open)
    best_of_run = rank == _lowest_of_run(rank, view.open)
    chosen = best_of_run & (score > self.low_threshold[:, None])
    chosen |= (score > self.threshold[:, None]) | (rank == 0)
    return view.open & chosen


def _lowest_of_run(rank, is_open):
  """Returns, at every open position, the lowest rank of the run of open positions around it."""
  start = is_open & ~jnp.pad(is_open, ((0, 0), (1, 0)))[:, :-1]
  run = jnp.cumsum(start, axis=1)
  size = rank.shape[1]

  def of_row(rank, run, is_open):
    lowest = jax.ops.segment_min(jnp.where(is_open, rank, size), run, num_segments=size + 1)
    return lowest[run]

  return jax.vmap(of_row)(rank, run, is_open)
