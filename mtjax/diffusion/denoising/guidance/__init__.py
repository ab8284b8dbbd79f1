"""Guidance: what logits become by a second pass, or by inputs that tell of the last one."""

from mtjax.diffusion.denoising.guidance.classifier_free import ClassifierFree
from mtjax.diffusion.denoising.guidance.growing_contrast import GrowingContrast
from mtjax.diffusion.denoising.guidance.protocol import Guidance
from mtjax.diffusion.denoising.guidance.soft_iteration import SoftIteration
from mtjax.diffusion.denoising.guidance.unguided import Unguided

__all__ = ["ClassifierFree", "GrowingContrast", "Guidance", "SoftIteration", "Unguided"]
