"""The bundled draft model draws a tree that grows where drafts are likely kept (2410.11744).

python -m experiments.decode --config=configs/decode/grown_tree.py --config.temperature=1 < my.txt
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  # As in configs/decode/draft_tree.py: drafts are drawn without replacement.
  config.update(method="grown_tree", verifier="traversal")
  config.draft_model = "draft"  # of the target's tokenizer: bundled, a folder or an id
  # Fields of mtjax.draft.GrownTree: size, depth, children, step. Each pass of the draft model adds
  # `step` drafts.
  config.drafter = drafters.settings("grown_tree")
  return config
