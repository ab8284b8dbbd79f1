"""Speculates while it pays, on the bundled target: never much slower than plain decoding.

python -m experiments.decode --config=configs/decode/auto.py --prompt="def add(a, b):"

A round for which nothing is drafted, or after a run of refused drafts, is a plain one. The text is
the one that configs/decode/ar.py gives with the same seed.
"""

from ml_collections import ConfigDict

from configs.decode import ar


def get_config() -> ConfigDict:
  config = ar.get_config()
  config.update(method="auto", verifier="sample_match")
  config.of = "lookup"  # whose drafts: a drafter of mtjax.drafters
  config.draft_model = "draft"  # for drafters that take one
  config.drafter = ConfigDict(dict(length=5, branches=1))  # the drafter's fields
  config.drafter.unlock()
  # Fields of mtjax.adaptive.Adaptive; cost 0: measured before the first token.
  config.adaptive = dict(cost=0.0, patience=16, memory=0.2, hope=2.0)
  return config
