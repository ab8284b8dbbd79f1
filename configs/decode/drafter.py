"""Any drafter of mtjax.registry.methods by name, with its own settings, on the bundled target.

python -m experiments.decode --config=configs/decode/drafter.py:lookup --prompt="def add(a, b):"

For drafters that have no config of their own, such as one that you write. Every setting that the
drafter has is a field, with the drafter's default: --config.drafter.length=4.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config(drafter: str) -> ConfigDict:
  return decode_config(drafter)
