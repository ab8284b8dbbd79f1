"""Token recycling (2408.08696) on the bundled target: its own second thoughts are the drafts.

python -m experiments.decode --config=configs/decode/recycling.py --prompt="def add(a, b):"

Nothing but V x candidates ids is kept. The text is the one that configs/decode/ar.py gives with
the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Recycling: tree, candidates. The paper's tree has 80 nodes, for
  # accelerators.
  return decode_config("recycling")
