"""A draft model with another tokenizer drafts for the bundled target, by way of text.

python -m experiments.decode --config=configs/decode/cross_vocabulary.py \\
  --config.draft_model=models/shakespeare --prompt="ROMEO:"

Universal assisted generation as in transformers. README's section "Train" makes that draft model,
which reads bytes. The text is the one that configs/decode/ar.py gives with the same seed.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="cross_vocabulary", verifier="sample_match")
  config.draft_model = "models/shakespeare"  # a folder or an id, with a tokenizer of its own
  # Fields of mtjax.draft.CrossVocabulary (length, most, space), and of its Translator (look_back).
  # Drafts are `length` tokens of the draft model, at most `most` of the target.
  config.drafter = drafters.settings("cross_vocabulary")
  return config
