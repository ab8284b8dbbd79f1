"""CreditDecoding on the bundled masked model (2510.06133), as in dInfer (2510.08666).

python -m experiments.decode --config=configs/decode/credit.py --prompt="The old clock"

Tokens that were the most probable in earlier passes get credit, so that positions pass the
threshold sooner. A pass computes the block and what is near it over old keys:
--config.denoise.cache=none computes everything.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("credit")
