"""Token recycling (2408.08696) on the bundled target: its own second thoughts are the drafts.

python -m experiments.decode --config=configs/decode/recycling.py --prompt="def add(a, b):"

Nothing but V x candidates ids is kept. The text is the one that configs/decode/ar.py gives with
the same seed.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="recycling", verifier="sample_match")
  # Fields of mtjax.draft.Recycling: tree, candidates. The paper's tree has 80 nodes, for
  # accelerators.
  config.drafter = drafters.settings("recycling")
  return config
