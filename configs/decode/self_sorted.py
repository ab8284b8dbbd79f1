"""The target drafts for itself with its first layers (2407.01955, 2404.16710).

python -m experiments.decode --config=configs/decode/self_sorted.py --prompt="Once upon a time"

For targets that were trained to be left early (configs/train/sorted_draft.py shows how). The
bundled target was not: it drafts little of use, and the text is the one of plain decoding anyway.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="self_sorted", verifier="block")
  # Fields of mtjax.draft.SelfSorted: exits, thresholds, length. exits=() are those that the target
  # was trained with: the bundled one has none. thresholds=() are 0.5 at every exit.
  config.drafter = drafters.settings("self_sorted") | dict(exits=(3, 5))
  return config
