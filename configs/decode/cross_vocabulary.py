"""A draft model with another tokenizer drafts for the bundled target, by way of text.

python -m experiments.decode --config=configs/decode/cross_vocabulary.py \\
  --config.draft_model=models/shakespeare --prompt="ROMEO:"

Universal assisted generation as in transformers. docs/guides/train.md makes that draft model,
which reads bytes. The text is the one that configs/decode/ar.py gives with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.CrossVocabulary (length, most, space), and of its Translator (look_back).
  # Drafts are `length` tokens of the draft model, at most `most` of the target.
  return decode_config("cross_vocabulary")
