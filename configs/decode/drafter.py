"""Any drafter of mtjax.drafters by name, with its own defaults, on the bundled target.

python -m experiments.decode --config=configs/decode/drafter.py:lookup --prompt="def add(a, b):"

For drafters that have no config of their own: one you are writing, say.
"""

from ml_collections import ConfigDict

from configs.decode import ar


def get_config(drafter: str) -> ConfigDict:
  config = ar.get_config()
  config.update(method=drafter, verifier="sample_match")
  config.draft_model = "draft"  # for drafters that take one
  config.drafter = ConfigDict()
  config.drafter.unlock()  # the drafter's fields: --config.drafter.length=4
  return config
