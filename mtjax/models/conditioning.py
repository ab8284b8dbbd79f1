"""The extra input of a single-stream any-order model: the position that an entry predicts.

An entry of such a model predicts the token at another position than its own, `Frontier.target`. So
its keys and values depend on that position too, and may be committed only for the target that comes
next in fact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def known_targets(
  vector: Float[Array, "B T D"], target: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
  """Returns the learned vector of each predicted position, and zeros where there is none (-1)."""
  return jnp.where((target >= 0)[..., None], vector, 0)


class Modulation(NamedTuple):
  """The modulation of one branch: input shifted and scaled, output gated (2212.09748, sec. 3.2)."""

  shift: Float[Array, "B T D"]
  scale: Float[Array, "B T D"]
  gate: Float[Array, "B T D"]

  def before(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return x * (1 + self.scale) + self.shift

  def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    # A DiT multiplies by the gate alone. With 1 + gate, zeros give a plain transformer, and its
    # weights fit.
    return x * (1 + self.gate)


def modulations(projected: Float[Array, "B T W"]) -> tuple[Modulation, Modulation]:
  """Splits six vectors side by side into the modulations of the attention and of the MLP."""
  parts = jnp.split(projected, 6, axis=-1)
  return Modulation(*parts[:3]), Modulation(*parts[3:])


def conditioned(target: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
  """Returns the input of the projection whose output `modulations` splits."""
  return jax.nn.silu(target)
