"""A contrast with the model without its prompt that grows with the distance from the prompt."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.guidance.protocol import TwoPasses
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.rule import SHARE, PerRow, Range, rule


@rule
class GrowingContrast(TwoPasses):
  """Logits become c + (1 - g) / g (c - u) where max p < certain, with g = exp(-decay t).

  M3ID (2403.14003, section 4), which fights that a text forgets what it was conditioned on: t is
  the number of tokens before. There texts grow from left to right; here t is the number of
  positions between the prompt and the one in question, decided or not. Positions at which the model
  is certain without it keep their logits, and so does the first.
  """

  decay: PerRow = 0.02
  certain: PerRow = 0.3
  ranges: ClassVar[dict[str, Range]] = {"decay": Range(low=0.0), "certain": SHARE}

  def weight(self, job: Job, now: Pass, given: Float[Array, "B W V"]) -> Float[Array, "B W"]:
    distance = jnp.maximum(now.window.index - job.start[:, None], 0)
    # (1 - g) / g without the rounding of 1 - g near the prompt.
    grown = jnp.expm1(self.decay[:, None] * distance)
    p_max = jnp.exp(jnp.max(jax.nn.log_softmax(given, axis=-1), axis=-1))
    return jnp.where(p_max < self.certain[:, None], grown, 0.0)
