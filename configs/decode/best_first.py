"""The bundled draft model drafts its likeliest paths, another tree a round (2406.16858).

python -m experiments.decode --config=configs/decode/best_first.py --prompt="Once upon a time"

The tree is chosen, not drawn: with a temperature, the text is the one that configs/decode/ar.py
gives with the same seed.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="best_first", verifier="sample_match")
  config.draft_model = "draft"  # of the target's tokenizer: bundled, a folder or an id
  # Fields of mtjax.draft.BestFirst: width, depth, size, threshold. A threshold of what a draft pass
  # costs in target passes goes as deep as pays (2406.17276).
  config.drafter = drafters.settings("best_first")
  return config
