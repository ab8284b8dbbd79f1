"""Any drafter of mtjax.registry.drafters by name, with its own settings, on the bundled target.

python -m experiments.decode --config=configs/decode/drafter.py:lookup --prompt="def add(a, b):"

For drafters that have no config of their own: one you are writing, say. Every setting that the
drafter has is a field, with the drafter's default: --config.drafter.length=4.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config(drafter: str) -> ConfigDict:
  config = ar.get_config()
  config.update(method=drafter, verifier="sample_match")
  config.draft_model = "draft"  # for drafters that take one
  config.drafter = drafters.settings(drafter)
  return config
