"""First-hitting sampling: exactly one uniformly chosen position per pass, and its random time."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import UniformTransfer
from mtjax.diffusion.random_numbers import Stream, uniform_of_row
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class FirstHitting(UniformTransfer):
  """The continuous-time process, from jump to jump (2409.02908).

  Of n masked positions each is unmasked by the time the rate has fallen from t to t u with
  probability 1 - u. So the first one is uniform among them, and the masking rate at its jump is
  t u^(1/n) with uniform u, whatever the schedule is. Networks that do not see the time need the
  position only.
  """

  exactness = Exactness.LOSSLESS
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return first(score, view.open, jnp.ones_like(view.step))

  def next_rate(self, view: View) -> Float[Array, " B"]:
    # 1 - u is in (0, 1], so that the rate stays positive.
    u = 1.0 - uniform_of_row(view, Stream.TIME)
    n = view.num_open
    return jnp.where(n > 0, view.t * u ** (1.0 / jnp.maximum(n, 1)), view.t)
