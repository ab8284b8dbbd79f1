"""dInfer's hierarchy on the bundled masked model (2510.08666).

python -m experiments.decode --config=configs/decode/hierarchy.py --prompt="The old clock"

A pass decides the best position of every run of masks, so that neighbours are seldom decided
together. It computes the block and what is near it over old keys: --config.denoise.cache=none
computes everything.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("hierarchy")
