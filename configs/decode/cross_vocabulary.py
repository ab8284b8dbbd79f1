"""A draft model with another tokenizer drafts for the bundled target; drafts pass as text.

python -m experiments.decode --config=configs/decode/cross_vocabulary.py \\
  --config.draft_model=models/shakespeare --prompt="ROMEO:"

This is universal assisted generation as in transformers. docs/guides/train.md makes that draft
model, which reads bytes. The text is the same as that of configs/decode/ar.py with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.CrossVocabulary (length, max_drafts, space), and of its Translator
  # (look_back). Drafts are `length` tokens of the draft model, at most `max_drafts` of the target.
  return decode_config("cross_vocabulary")
