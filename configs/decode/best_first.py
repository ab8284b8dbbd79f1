"""The bundled draft model drafts its likeliest paths, another tree a round (2406.16858).

python -m experiments.decode --config=configs/decode/best_first.py --prompt="Once upon a time"

The tree is chosen, not drawn: with a temperature, the text is the one that configs/decode/ar.py
gives with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.BestFirst: width, depth, size, threshold. A threshold of what a draft pass
  # costs in target passes goes as deep as pays (2406.17276).
  return decode_config("best_first")
