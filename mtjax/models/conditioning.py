"""What a single-stream any-order model is told besides token and position: what comes next.

An entry of such a model predicts the token at another position than its own, `Frontier.target`. So
its keys and values depend on that position too, and may be committed only for the target that does
come next.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def known_targets(
  vector: Float[Array, "B T D"], target: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
  """The learned vector of each position that is predicted; zeros where none is (-1)."""
  return jnp.where((target >= 0)[..., None], vector, 0)


class Modulation(NamedTuple):
  """Of one branch: its input is shifted and scaled, its output gated (2212.09748, sec. 3.2)."""

  shift: Float[Array, "B T D"]
  scale: Float[Array, "B T D"]
  gate: Float[Array, "B T D"]

  def before(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return x * (1 + self.scale) + self.shift

  def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    # 1 + gate, where a DiT has the gate alone: zeros are a plain transformer, whose weights fit.
    return x * (1 + self.gate)


def modulations(projected: Float[Array, "B T W"]) -> tuple[Modulation, Modulation]:
  """Of the attention and of the MLP: six vectors side by side."""
  parts = jnp.split(projected, 6, axis=-1)
  return Modulation(*parts[:3]), Modulation(*parts[3:])


def conditioned(target: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
  """What the projection of `modulations` is of."""
  return jax.nn.silu(target)
