"""Autoregressive decoding of the bundled target: the baseline of every comparison.

python -m experiments.decode --config=configs/decode/ar.py --prompt="Once upon a time"
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/configs.py.
  return decode_config("ar")
