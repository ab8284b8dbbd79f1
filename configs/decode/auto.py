"""Speculates while it pays, on the bundled target: never much slower than plain decoding.

python -m experiments.decode --config=configs/decode/auto.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/auto.py:trie --config.drafter.size=6 ...

A round for which nothing is drafted, or after a run of refused drafts, is a plain one. The text is
the one that configs/decode/ar.py gives with the same seed. Drafts are those of prompt lookup, or of
the drafter that is named behind the file.
"""

from ml_collections import ConfigDict

from configs.decode import ar
from mtjax.registry import drafters


def get_config(of: str = "lookup") -> ConfigDict:
  config = ar.get_config()
  config.update(method="auto", verifier="sample_match")
  config.of = of  # whose drafts: a drafter of mtjax.registry.drafters
  config.draft_model = "draft"  # for drafters that take one
  config.drafter = drafters.settings(of)  # the drafter's fields
  if of == "lookup":
    config.drafter.length = 5  # a forward of 6 entries costs little more than one of a single one
  # Fields of mtjax.decode.adaptive.Adaptive; cost 0: measured before the first token.
  config.adaptive = dict(cost=0.0, patience=16, memory=0.2, hope=2.0)
  return config
