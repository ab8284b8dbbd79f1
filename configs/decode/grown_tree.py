"""The bundled draft model samples a tree that grows where drafts are likely kept (2410.11744).

python -m experiments.decode --config=configs/decode/grown_tree.py --config.temperature=1 < my.txt
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Verifiers as in configs/decode/draft_tree.py: drafts are sampled without replacement.
  # Fields of mtjax.draft.GrownTree: size, depth, children, step. Each pass of the draft model adds
  # `step` drafts.
  return decode_config("grown_tree")
