"""The distribution of texts that a deciding policy makes, by trying every outcome on a toy."""

from mtjax.evaluate.denoising.conditionals import (
  Conditionals,
  canvases,
  conditionals_of,
  perturbed,
)
from mtjax.evaluate.denoising.enumeration import Passes, TextProbs, passes, text_probs

__all__ = [
  "Conditionals",
  "Passes",
  "TextProbs",
  "canvases",
  "conditionals_of",
  "passes",
  "perturbed",
  "text_probs",
]
