"""Adaptive parallel decoding: a causal model says how many tokens of a masked one to take."""

from mtjax.diffusion.denoising.adaptive.rule import AdaptiveParallel
from mtjax.diffusion.denoising.adaptive.run import denoise_adaptively, stream_adaptively

__all__ = ["AdaptiveParallel", "denoise_adaptively", "stream_adaptively"]
