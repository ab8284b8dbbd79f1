"""Rankings with Gumbel noise: positions sampled without replacement."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyOrderTransfer
from mtjax.diffusion.random_numbers import Stream, gumbel
from mtjax.diffusion.ranking import first
from mtjax.diffusion.view import View


class GumbelRanking(AnyOrderTransfer):
  """Base of transfer rules that rank positions by location + temperature G, with Gumbel noise G.

  Above temperature 0 the first n of the ranking are n positions sampled without replacement from
  softmax(location / temperature), by the Gumbel top-k trick (1903.06059).
  """

  def count(self, view: View) -> Int[Array, " B"]:
    """Returns the number of positions of this pass."""
    raise NotImplementedError

  def location(self, score: Float[Array, "B L"]) -> Float[Array, "B L"]:
    """Returns the ranking's scores before noise."""
    raise NotImplementedError

  def temperature(self, view: View) -> Float[Array, " B"]:
    """Returns the temperature of the noise."""
    raise NotImplementedError

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    noise = self.temperature(view)[:, None] * gumbel(view, Stream.TRANSFER)
    return first(self.location(score) + noise, view.open, self.count(view))


def whole(count: Float[Array, " B"]) -> Int[Array, " B"]:
  """Returns floor(count); a whole number that rounding has made a little smaller stays itself."""
  return jnp.floor(count + 1e-4).astype(jnp.int32)
