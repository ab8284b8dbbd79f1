"""Speculates while it pays, on the bundled target: never much slower than plain decoding.

python -m experiments.decode --config=configs/decode/auto.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/auto.py:trie --config.drafter.size=6 ...

A round for which nothing is drafted, or after a run of refused drafts, is a plain one. The text is
the one that configs/decode/ar.py gives with the same seed. Drafts are those of prompt lookup, or of
the drafter that is named behind the file.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config(of: str = "lookup") -> ConfigDict:
  return decode_config("auto", of=of)
