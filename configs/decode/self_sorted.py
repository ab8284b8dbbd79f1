"""The target drafts for itself with its first layers (2407.01955, 2404.16710).

python -m experiments.decode --config=configs/decode/self_sorted.py --prompt="Once upon a time"

For targets that were trained to be left early (configs/train/sorted_draft.py shows how). The
bundled target was not: few of its drafts are accepted; the text is that of plain decoding anyway.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.SelfS2D: exits, thresholds, length. exits=() are those that the target
  # was trained with: the bundled one has none. thresholds=() are 0.5 at every exit.
  return decode_config("self_sorted")
