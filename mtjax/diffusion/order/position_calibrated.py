"""Positions from left to right and by how much their token says (PC-Sampler)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.order import token_frequencies
from mtjax.diffusion.order.sampled_probability import SampledProbability
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import PerRow, Range, rule, static_field
from mtjax.diffusion.view import View
from mtjax.types import Exactness

_UNSEEN = 1e-9  # is added to frequencies, as in the authors' program
_MIN = 1e-30  # of the calibrated confidence, whose logarithm is taken


@rule
class PositionCalibrated(StatelessOrder):
  """Scores are exp(-decay i) min(-p(x) log(f(x) + 1e-9), limit) (PC-Sampler 2508.13021, section 4).

  i is the place in the block, from 0, p(x) the probability of the candidate under `View.scored`,
  and f(x) its frequency in a text. The second factor is small for tokens that are frequent
  anywhere, such as ends of lines and full stops, of which a model is sure early; the first one
  prefers positions on the left. What this returns is the logarithm, so that places far on the right
  still differ; the order is the same.

  decay: 0.25 in the authors' scripts, 0 for Sudoku, 0.5 for Countdown.
  limit: 10 in all of them.
  frequencies: a JSON file of the authors' form, which `TokenFrequencies` of
    mtjax/diffusion/order/token_frequencies.py counts and writes; "bundled": those of the bundled
    text under the bundled models' tokenizer; "": all tokens are equally frequent. They are read
    when a program is compiled, and are of all rows.
  """

  decay: PerRow = 0.25
  limit: PerRow = 10.0
  frequencies: str = static_field(default="")
  ranges: ClassVar[dict[str, Range]] = {
    "decay": Range(low=0.0),
    "limit": Range(low=0.0, open_low=True),
  }
  exactness = Exactness.APPROXIMATE
  reason = SampledProbability.reason

  def check_vocabulary(self, vocab_size: int) -> None:
    token_frequencies.get_frequencies(self.frequencies, vocab_size)

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    frequency = token_frequencies.get_frequencies(self.frequencies, view.logits.shape[-1])
    information = -jnp.log(jnp.asarray(frequency) + _UNSEEN)[candidates.token]
    confidence = jnp.exp(candidates.confidence) * information
    confidence = jnp.clip(confidence, _MIN, self.limit[:, None])
    place = jnp.arange(confidence.shape[1])
    return jnp.log(confidence) - self.decay[:, None] * place
