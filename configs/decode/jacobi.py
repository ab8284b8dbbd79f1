"""Lookahead decoding (2402.02057) on the bundled target: a window of guesses and its n-grams.

python -m experiments.decode --config=configs/decode/jacobi.py --prompt="def add(a, b):"

A round computes (ngram - 1)(window + guesses) entries: 120, 80 or 56 in the paper, for machines
that compute much while they read the weights. The text is the same as that of configs/decode/ar.py
with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Jacobi: window, ngram and guesses (W, N, G), and the pool's buckets.
  return decode_config("jacobi")
