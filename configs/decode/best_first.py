"""The bundled draft model drafts its most probable paths, a new tree per round (2406.16858).

python -m experiments.decode --config=configs/decode/best_first.py --prompt="Once upon a time"

The tree is chosen by a rule and not sampled: the text is the same as that of configs/decode/ar.py
with the same seed, at any temperature.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.BestFirst: width, depth, size, threshold. With the cost of a draft pass,
  # measured in target passes, as the threshold, trees are as deep as pays (2406.17276).
  return decode_config("best_first")
