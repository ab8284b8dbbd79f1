"""Classifier-free guidance."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.guidance.protocol import TwoPasses
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.rule import PerRow, Range, rule


@rule
class ClassifierFree(TwoPasses):
  """Logits become u + (scale + 1) (c - u), with u those of the canvas whose prompt is masked.

  LLaDA's cfg_scale (2502.09992, appendix A.1; `generate.py`). A row of scale 0 is not guided.
  """

  scale: PerRow = 1.0
  ranges: ClassVar[dict[str, Range]] = {"scale": Range(low=0.0)}

  def weight(self, job: Job, now: Pass, given: Float[Array, "B W V"]) -> Float[Array, "B W"]:
    return jnp.broadcast_to(self.scale[:, None], given.shape[:2])
