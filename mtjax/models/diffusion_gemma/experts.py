"""A mixture of experts: each entry is computed by the few that a router chooses for it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mtjax.models.diffusion_gemma.config import DiffusionGemmaConfig
from mtjax.models.linear import Linear
from mtjax.models.transformer import ACTIVATIONS


def unit_rms(x: Float[Array, "*N D"], eps: float) -> Float[Array, "*N D"]:
  """Returns x over its root mean square, in float32: an RMS norm without a weight."""
  y = x.astype(jnp.float32)
  return (y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps)).astype(x.dtype)


class Router(nn.Module):
  """Chooses `top_experts` experts per entry, and how much each counts."""

  config: DiffusionGemmaConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
    c = self.config
    scale = self.param("scale", nn.initializers.ones, (c.dim,)).astype(x.dtype)
    each = self.param("expert_scale", nn.initializers.ones, (c.experts,)).astype(jnp.float32)
    x = unit_rms(x, c.norm_eps) * scale * c.dim**-0.5
    scores = Linear(c.experts, False, x.dtype, out_dtype=jnp.float32, name="proj")(x)
    probs, index = jax.lax.top_k(jax.nn.softmax(scores), c.top_experts)
    probs /= jnp.sum(probs, axis=-1, keepdims=True)
    chosen = jax.nn.one_hot(index, c.experts, dtype=jnp.float32)
    return jnp.sum(chosen * probs[..., None], axis=-2) * each


class Experts(nn.Module):
  """Gated MLPs, summed with the router's weights.

  All experts compute all entries, and most are then weighted with zero: simple, and right for
  models as small as those that are trained here. It costs experts / top_experts times what the
  chosen ones cost.
  """

  config: DiffusionGemmaConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T D"], weight: Float[Array, "B T E"]
  ) -> Float[Array, "B T D"]:
    c, act = self.config, ACTIVATIONS[self.config.activation]
    start = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=1)
    # One row per expert, as files have them: [2 F, D] and [D, F].
    gate_up = self.param("gate_up", start, (c.experts, 2 * c.expert_dim * c.dim))
    down = self.param("down", start, (c.experts, c.dim * c.expert_dim))
    gate_up = gate_up.astype(x.dtype).reshape(c.experts, 2, c.expert_dim, c.dim)
    down = down.astype(x.dtype).reshape(c.experts, c.dim, c.expert_dim)
    gate, up = (jnp.einsum("btd,efd->btef", x, gate_up[:, part]) for part in (0, 1))
    return jnp.einsum("btef,edf,bte->btd", act(gate) * up, down, weight.astype(x.dtype))
