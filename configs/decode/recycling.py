"""Token recycling (2408.08696) on the bundled target: drafts are its own top-k candidates.

python -m experiments.decode --config=configs/decode/recycling.py --prompt="def add(a, b):"

The state is a matrix of V x candidates ids. The text is the same as that of configs/decode/ar.py
with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Recycling: tree, candidates. The paper's tree has 80 nodes, for
  # accelerators.
  return decode_config("recycling")
