"""The bundled draft model draws a tree that grows where drafts are likely kept (2410.11744).

python -m experiments.decode --config=configs/decode/grown_tree.py --config.temperature=1 < my.txt
"""

from ml_collections import ConfigDict

from configs.decode import ar


def get_config() -> ConfigDict:
  config = ar.get_config()
  # As in configs/decode/draft_tree.py: drafts are drawn without replacement.
  config.update(method="grown_tree", verifier="traversal")
  config.draft_model = "draft"  # of the target's vocabulary: bundled, a folder or an id
  # Fields of mtjax.draft.GrownTree: `step` drafts are added a pass of the draft model.
  config.drafter = dict(size=12, depth=6, children=4, step=3)
  return config
