"""Lookahead decoding (2402.02057) on the bundled target: a window of guesses and its n-grams.

python -m experiments.decode --config=configs/decode/jacobi.py --prompt="def add(a, b):"

A round computes (ngram - 1)(window + guesses) entries: 120, 80 or 56 in the paper, for machines
that compute much while they read the weights. The text is the one that configs/decode/ar.py gives
with the same seed.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="jacobi", verifier="sample_match")
  # Fields of mtjax.draft.Jacobi: window, ngram and guesses (W, N, G), and the pool's buckets.
  config.drafter = drafters.settings("jacobi")
  return config
