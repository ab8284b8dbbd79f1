"""A draft model that each token leaves as early as it is sure (S2D, 2407.01955).

python -m experiments.decode --config=configs/decode/sorted.py --prompt="Once upon a time"

One such draft serves every target of its vocabulary: experiments/bench/sorted.py compares it with
drafts of a fixed depth and with a draft for each target.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="sorted", verifier="block")
  config.draft_model = "sorted"  # of the target's tokenizer: bundled, a folder or an id
  # Fields of mtjax.draft.Sorted: after how many layers a token may leave (exits), how sure the
  # draft must be to leave there (thresholds), and length. exits=() are those that the draft was
  # trained with, thresholds=() are 0.5, and 0 at the last exit.
  config.drafter = drafters.settings("sorted")
  return config
