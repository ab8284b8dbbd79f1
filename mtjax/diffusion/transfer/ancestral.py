"""Ancestral sampling: every masked position is decided by a coin of its own."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import UniformTransfer
from mtjax.diffusion.random_numbers import Stream, uniform
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Ancestral(UniformTransfer):
  """A masked position is decided with probability (alpha_s - alpha_t) / (1 - alpha_t) = 1 - s / t.

  MDLM (2406.07524), MD4 (2406.04329), Dream's `origin`. Together with
  the candidate it is one sample of the categorical over V + 1 outcomes with probabilities
  (1 - s / t) p(v), and s / t for the mask. After the last planned pass none stays masked.
  """

  exactness = Exactness.APPROXIMATE
  reason = (
    "the tokens of one pass are sampled independently of each other: with more passes the "
    "distribution tends to that of FirstHitting"
  )
  independent = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return view.open & (uniform(view, Stream.TRANSFER) < self.probs(view)[:, None])

  def probs(self, view: View) -> Float[Array, " B"]:
    """Returns the probability with which a masked position is decided in this pass."""
    return jnp.where(view.last, 1.0, 1.0 - view.s / view.t)
