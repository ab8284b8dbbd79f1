"""Decoding with ResGen: all depths of a position from one vector, as many passes as steps.

Every pass samples the vector z of each position's masked depths, quantises it with the depths that
are masked, and keeps the codes of which the mixture is most certain (ResGen 2412.10208, sec. 3).
APPROXIMATE: positions are sampled independently of each other within a pass, z is rounded to
codes, and the order by confidence changes the distribution (only an order at random is the reverse
of the forward process).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from mtjax.display.short import short_repr
from mtjax.recipes.resgen.masking import masked_tokens, remask
from mtjax.recipes.resgen.mixture import Mixture
from mtjax.recipes.resgen.quantizer import ResidualQuantizer

# From known sums [B, L, C], numbers of masked codes [B, L] and classes [B] to mixtures.
Predict = Callable[[Float[Array, "B L C"], Int[Array, "B L"], Int[Array, " B"]], Mixture]


@dataclasses.dataclass(frozen=True)
class Decoding:
  """Settings: passes, noise of the order, and temperature of the Gaussians.

  `order_noise` multiplies Gumbel noise that is added to the log-density of each code, and falls
  linearly to 0 over the steps (MaskGIT 2202.04200). 0: the order is that of the log-densities;
  infinite: at random.
  """

  steps: int
  order_noise: float = 0.0
  temperature: float = 1.0

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"steps must be at least 1, got {self.steps}")
    for name in ("order_noise", "temperature"):
      if not getattr(self, name) >= 0:
        raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

  def plan(self, total: int, size: int | None = None) -> "DecodePlan":
    """Returns the arrays of these settings for `total` codes per row.

    One program decodes with all plans of one `size`, which is at least the steps (None: the steps).
    Raises ValueError for more steps than codes, and for a size below the steps.
    """
    left = masks_after(self.steps, total)
    size = self.steps if size is None else size
    if size < self.steps:
      raise ValueError(f"a plan of {self.steps} steps does not fit a size of {size}")
    return DecodePlan(
      left=jnp.asarray(np.pad(left, (0, size - self.steps))),
      steps=jnp.asarray(self.steps, jnp.int32),
      order_noise=jnp.asarray(self.order_noise, jnp.float32),
      temperature=jnp.asarray(self.temperature, jnp.float32),
    )


class DecodePlan(struct.PyTreeNode):
  """What the loop reads. Other values of the same shapes need no compilation."""

  left: Int[Array, " S"]  # masked codes after each step; 0 after the last
  steps: Int[Array, ""]  # at most S
  order_noise: Float[Array, ""]
  temperature: Float[Array, ""]

  __repr__ = short_repr


class Generated(struct.PyTreeNode):
  """Codes and how they came about."""

  tokens: Int[Array, "B L D"]
  counts: Int[Array, "S B L"]  # masked codes per position after each step; 0 from the last on
  forwards: Int[Array, ""]  # passes of the network

  __repr__ = short_repr


def masks_after(steps: int, total: int) -> Int[np.ndarray, " S"]:
  """Returns the number of masked codes after each step: ceil(cos(pi / 2 * s / S) * total).

  Every step unmasks at least one code, and after the last none is masked. Raises ValueError for
  more steps than codes.
  """
  if not 1 <= steps <= total:
    raise ValueError(f"steps must be 1 to the number of codes, {total}, got {steps}")
  left, before = [], total
  for step in range(1, steps + 1):
    n = int(np.ceil(np.cos(np.pi / 2 * step / steps) * total - 1e-9))
    before = max(min(n, before - 1), steps - step)
    left.append(before)
  return np.array(left, np.int32)


class _Loop(struct.PyTreeNode):
  made: Generated
  now: Int[Array, "B L"]  # masked codes per position


def generate(
  predict: Predict,
  quantizer: ResidualQuantizer,
  keys: Key[Array, " B"],
  label: Int[Array, " B"],
  plan: DecodePlan,
  *,
  length: int,
) -> Generated:
  """Returns the codes of one row per key; a row does not depend on the rows beside it.

  The passes of the network are the plan's steps, whatever the depth is.
  """
  depth, batch = quantizer.depth, label.shape[0]

  def unfinished(loop):
    return loop.made.forwards < plan.steps

  def step(loop):
    made, counts = loop.made, loop.now
    border = depth - counts
    mixture = predict(quantizer.embed(made.tokens, 0, border), counts, label)
    here = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, made.forwards)
    pair = jax.vmap(jax.random.split)(here)
    z = jax.vmap(Mixture.sample, in_axes=(0, 0, None))(mixture, pair[:, 0], plan.temperature)
    codes = quantizer.encode_rest(z, border)
    tokens = jnp.where(masked_tokens(counts, depth), codes, made.tokens)
    share = 1 - (made.forwards + 1) / plan.steps
    score, noise = _order(mixture.log_density(z), pair[:, 1], plan.order_noise, share, depth)
    counts = remask(counts, score, noise, plan.left[made.forwards])
    history = made.counts.at[made.forwards].set(counts)
    return _Loop(Generated(tokens, history, made.forwards + 1), counts)

  first = Generated(
    tokens=jnp.zeros((batch, length, depth), jnp.int32),
    counts=jnp.zeros((plan.left.shape[0], batch, length), jnp.int32),
    forwards=jnp.zeros((), jnp.int32),
  )
  start = _Loop(first, jnp.full((batch, length), depth, jnp.int32))
  return jax.lax.while_loop(unfinished, step, start).made


def _order(density, keys, order_noise, share, depth: int):
  """Returns the scores of positions and the noise of codes by which codes are unmasked."""
  shape = (density.shape[1], depth)
  noise = jax.vmap(lambda key: jax.random.gumbel(key, shape, mode="high"))(keys)
  at_random = jnp.isinf(order_noise)
  # Not inf * 0 in the last step.
  scale = jnp.where(at_random, 1.0, jnp.where(at_random, 1.0, order_noise) * share)
  return jnp.where(at_random, 0.0, density), scale * noise
