"""WINO's draft: many positions at a low threshold, because they are verified later."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import ProbabilityTransfer
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PROBABILITY, PerRow, Range, rule
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class WinoDraft(ProbabilityTransfer):
  """A pass decides the open positions with score > threshold, a limited number, at least one.

  The limit is min(max(floor(0.7 n), 5), 20) of n open positions, the best ones (2507.18578,
  `decoding_wino`). `Wino` verifies them.
  """

  threshold: PerRow = 0.6
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    limit = jnp.clip(view.num_open * 7 // 10, 5, 20)
    above = view.open & (score > self.threshold[:, None])
    count = jnp.clip(jnp.sum(above, axis=1, dtype=jnp.int32), 1, limit)
    return first(score, view.open, count)
