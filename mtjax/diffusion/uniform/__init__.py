"""Uniform canvases: random tokens become text, and every one may change until its canvas ends."""

from mtjax.diffusion.uniform.accept_or_renoise import AcceptOrRenoise
from mtjax.diffusion.uniform.causal_encoder import CausalEncoder
from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.uniform.posterior import (
  MixturePosterior,
  NoisePosterior,
  reverse_probs,
  without_own_entry,
)
from mtjax.diffusion.uniform.rule import UniformRule
from mtjax.diffusion.uniform.run import denoise_uniform, stream_uniform
from mtjax.diffusion.uniform.whole_text import WholeText

__all__ = [
  "AcceptOrRenoise",
  "CausalEncoder",
  "MixturePosterior",
  "NoisePosterior",
  "UniformNetwork",
  "UniformRule",
  "WholeText",
  "denoise_uniform",
  "reverse_probs",
  "stream_uniform",
  "without_own_entry",
]
