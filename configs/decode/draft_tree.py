"""The bundled draft model drafts a tree of a fixed shape (2305.09781, 2402.12374).

python -m experiments.decode --config=configs/decode/draft_tree.py --prompt="Once upon a time"

Greedily, the tree holds the most probable tokens; with a temperature `scheme` samples siblings.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Verifiers: "traversal" accepts most drafts without replacement (2505.12398), "rrs_without" is
  # cheaper; "sample_match" gives the same text as configs/decode/ar.py with the same seed.
  # topology: children by depth, or "medusa_63", "eagle_25". scheme: "delta" (the most probable),
  # "with-replacement" (verifier rrs_with, kseq or traversal), "without-replacement",
  # "greedy-plus-one" (its own verifier), "pair" (two children per node; verifier spechub).
  return decode_config("draft_tree")
