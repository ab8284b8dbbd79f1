"""MaskGIT's rule on the bundled masked model (2202.04200).

python -m experiments.decode --config=configs/decode/maskgit.py --prompt="The old clock"

Sixteen passes, of which each decides more positions than the one before, by a cosine: those of the
highest confidence plus Gumbel noise, which falls to nothing with the passes.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("maskgit")
