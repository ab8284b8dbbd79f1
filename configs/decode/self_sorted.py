"""The target drafts for itself with its first layers (2407.01955, 2404.16710).

python -m experiments.decode --config=configs/decode/self_sorted.py --prompt="Once upon a time"

For targets that were trained to be left early (configs/train/sorted_draft.py shows how). The
bundled target was not: it drafts little of use, and the text is the one of plain decoding anyway.
"""

from ml_collections import ConfigDict

from configs.decode import ar


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="self_sorted", verifier="block")
  # Fields of mtjax.draft.SelfSorted; exits=() are those that the target was trained with.
  config.drafter = dict(exits=(3, 5), thresholds=(0.5, 0.5), length=3)
  return config
