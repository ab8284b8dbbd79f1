"""The bundled draft model drafts for the bundled target (2211.17192, 2302.01318).

python -m experiments.decode --config=configs/decode/draft.py --prompt="Once upon a time"
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Verifiers: "block" accepts most of a chain (2403.10444); "chain" is the first rule (2211.17192);
  # "sample_match" gives the same text as configs/decode/ar.py with the same seed.
  # config.draft_model: a model with the target's tokenizer: a bundled one, a folder or an id.
  # config.drafter: fields of mtjax.draft.ModelChain, length and confidence.
  return decode_config("draft")
