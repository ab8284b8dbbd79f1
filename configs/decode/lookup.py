"""Prompt lookup on the bundled target: drafts are copied from the text so far.

python -m experiments.decode --config=configs/decode/lookup.py --prompt="def add(a, b):"

For text that repeats itself or its prompt: code, extraction, summaries. The text is the same as
that of configs/decode/ar.py with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.PromptLookup: length, branches, max_ngram, min_ngram.
  return decode_config("lookup")
