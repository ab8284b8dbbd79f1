"""A draft model that each token leaves as soon as its prediction is certain (S2D, 2407.01955).

python -m experiments.decode --config=configs/decode/sorted.py --prompt="Once upon a time"

One such draft serves every target of its vocabulary: experiments/bench/sorted.py compares it with
drafts of a fixed depth and with a draft for each target.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.S2D: after how many layers a token may leave (exits), which probability
  # its prediction must have there (thresholds), and length. exits=() are those that the draft was
  # trained with, thresholds=() are 0.5, and 0 at the last exit.
  return decode_config("sorted")
