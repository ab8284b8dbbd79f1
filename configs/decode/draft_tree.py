"""The bundled draft model drafts a tree of a fixed shape (2305.09781, 2402.12374).

python -m experiments.decode --config=configs/decode/draft_tree.py --prompt="Once upon a time"

Greedy, the tree holds the likeliest tokens; with a temperature its siblings are drawn by `law`.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # "traversal" accepts most of drafts without replacement (2505.12398), "rrs_without" is cheaper;
  # "sample_match" gives the text that configs/decode/ar.py gives with the same seed.
  # topology: children by depth, or "medusa_63", "eagle_25". law: "delta" (the likeliest),
  # "with-replacement" (verifier rrs_with, kseq or traversal), "without-replacement",
  # "greedy-plus-one" (its own verifier), "pair" (two children a node; verifier spechub).
  return decode_config("draft_tree")
